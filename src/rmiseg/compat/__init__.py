"""Drop-in replacements: the constructors and the values of other implementations of RMI, which need an older PyTorch.

Examples:
    >>> from rmiseg.compat.original import RMILoss      # of the authors' repository, ZJULearning/RMI
    >>> from rmiseg.compat.rmi_pytorch import RMILoss   # of the package rmi-pytorch 0.1.1
"""
