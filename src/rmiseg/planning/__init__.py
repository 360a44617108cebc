"""Options that nobody gave, decided from the data and the machine: every rule with its reason."""

from rmiseg.planning.decisions import Decision, Plan
from rmiseg.planning.machine import GIGABYTE, Machine, this_machine
from rmiseg.planning.plan import decide
from rmiseg.planning.profile import DataProfile, profile_data
from rmiseg.planning.splits import choose_folds, planned_folds, planned_name, planned_val, with_name

__all__ = [
    "GIGABYTE",
    "DataProfile",
    "Decision",
    "Machine",
    "Plan",
    "choose_folds",
    "decide",
    "planned_folds",
    "planned_name",
    "planned_val",
    "profile_data",
    "this_machine",
    "with_name",
]
