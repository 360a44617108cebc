"""Image and mask files, whatever their format, to exact arrays."""
