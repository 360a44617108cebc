"""A page in the browser on which a model can be tried."""
