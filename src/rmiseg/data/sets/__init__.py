"""The data sets, one a file, and how their files lie in folders."""
