"""Scores of trained models: counted, saved, compared."""
