"""A grid of training runs by one command: plan, runs, tables."""
