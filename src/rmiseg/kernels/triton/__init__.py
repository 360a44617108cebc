"""The RMI loss, and the pixel losses alone, as Triton kernels for CUDA: `launch` has the functions."""
