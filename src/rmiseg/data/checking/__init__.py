"""Faults of single files, and doubts about a whole data set."""
