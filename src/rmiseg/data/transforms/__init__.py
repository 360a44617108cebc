"""The way from an image and its mask to a training crop or to what is scored."""
