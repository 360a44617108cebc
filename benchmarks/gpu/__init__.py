"""What a GPU is asked by `benchmarks/gpu_check.py`, one part a file."""
