"""What can be chosen, and how choices are read: options, recipes, the parser, the registry."""

from rmiseg.config.options import *  # noqa: F403
