"""Files of torchvision's DeepLabv3, FCN and LRASPP. In its own models, torchvision:NAME, names are what they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rmiseg.models.conversion.family import BODY, Family, conv_norm

TORCHVISION = Family(
    title="torchvision",
    marks=(r"backbone\.(?!body\.)", r"classifier\.(?:\d|cbr)\."),
    table=(
        (r"backbone\.", BODY),
        *conv_norm(r"classifier\.0\.convs\.([0-3])", r"aspp.convs.\1"),
        *conv_norm(r"classifier\.0\.convs\.4", "aspp.image_pooling.project", "1", "2"),
        *conv_norm(r"classifier\.0\.project", "aspp.project"),
        *conv_norm(r"classifier", "refine", "1", "2"),
        (r"classifier\.4\.", "classifier."),
        *conv_norm(r"aux_classifier", "auxiliary.0"),
        (r"aux_classifier\.4\.", "auxiliary.2."),
    ),
    needed=r"classifier\.",
    unused=(r"classifier\.(?:cbr|scale|low_classifier|high_classifier)\.",),
    output_stride=8,
)

LAST_LAYERS = ("classifier.low_classifier.weight", "classifier.4.weight")
"""Last layers of LRASPP, and of the others."""
BLOCKS = {16: "resnet50", 33: "resnet101"}


def torchvision_name(state: Mapping[str, Any]) -> str | None:
    """Return which of torchvision's models a file is of; None of one that is deeplabv3 here: without auxiliary head."""
    if "classifier.cbr.0.weight" in state:
        return "lraspp_mobilenet_v3_large"
    if "backbone.0.0.weight" in state:
        return "deeplabv3_mobilenet_v3_large" if "classifier.0.project.0.weight" in state else None
    backbone = BLOCKS.get(len({found[0] for name in state if (found := re.match(r"backbone\.layer\d\.\d+\.", name))}))
    if backbone is None or not any(name in state for name in LAST_LAYERS):
        return None
    if "classifier.0.project.0.weight" not in state:
        return f"fcn_{backbone}"
    return f"deeplabv3_{backbone}" if "aux_classifier.4.weight" in state else None
