"""The version of this package."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("rmiseg")
except PackageNotFoundError:  # a source tree that is on the path without being installed
    __version__ = "0+unknown"
