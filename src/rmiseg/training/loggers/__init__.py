"""Where the curves and pictures of a training go: one logger a file, all of them `Logger`."""

from rmiseg.training.loggers.base import Logger

__all__ = ["Logger"]
