"""What is typed is understood, and what is printed can be read: in a terminal of any width and encoding, and in a pipe.

arguments   flags anywhere between the settings, and ~ for the home folder
ending      how a command ends, and its exit status
errors      what an error says, and the status with which the command ends
places      whether there is a place to write to
signs       signs that an encoding lacks, written with those that it has
stopping    what a command says that is stopped
streams     output that is closed, or takes nothing more
tables      tables that are never narrower than what they hold
"""
