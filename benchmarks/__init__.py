"""Measurements of fmcore side by side with its peers and with physical limits; see README.md in this folder."""
