"""Weights of other programs in models of this package, by a table of names for each: a file a family."""

from rmiseg.models.conversion.family import Family
from rmiseg.models.conversion.fitting import FAMILIES, Fit, backbone_entries, fit, recognize, unwrapped
from rmiseg.models.conversion.wrapping import beginnings, find_state_dict, without

__all__ = [
    "FAMILIES",
    "Family",
    "Fit",
    "backbone_entries",
    "beginnings",
    "find_state_dict",
    "fit",
    "recognize",
    "unwrapped",
    "without",
]
