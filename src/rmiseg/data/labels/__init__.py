"""Formats of labelling tools: one file a format, read as masks and, of some, written as pre-labels."""

from rmiseg.data.labels.annotations import Annotations, LabeledImage, LabelFormat, PreLabels, Region, Tally
from rmiseg.data.labels.documents import Documents
from rmiseg.data.labels.importing import import_labels
from rmiseg.data.labels.report import ImportReport, print_import

__all__ = [
    "Annotations",
    "Documents",
    "ImportReport",
    "LabelFormat",
    "LabeledImage",
    "PreLabels",
    "Region",
    "Tally",
    "import_labels",
    "print_import",
]
