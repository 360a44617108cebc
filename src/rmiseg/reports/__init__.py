"""One HTML page that shows and compares runs."""
