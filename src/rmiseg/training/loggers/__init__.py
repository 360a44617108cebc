"""Places for the curves and pictures of a training: one logger a file, all of them `Logger`."""

from rmiseg.training.loggers.base import Logger

__all__ = ["Logger"]
