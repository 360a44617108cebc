"""The RMI loss, fast: the same values and gradients as the definitions in `rmiseg.functional`."""
