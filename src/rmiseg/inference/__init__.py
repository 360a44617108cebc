"""Using a trained model: predictions and pictures."""
