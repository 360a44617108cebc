"""Measurements of `rmiseg bench`."""
