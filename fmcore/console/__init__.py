"""What is printed can be read: in a terminal of any width and encoding, and in a pipe.

signs       signs that an encoding lacks, written with those that it has
tables      tables that are never narrower than what they hold
"""
