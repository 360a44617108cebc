"""Training and evaluation: a plain PyTorch loop and what it needs."""
