"""Files of segmentation-models-pytorch: encoders of ResNets and of timm, and DeepLabv3's head.

For its own models, smp:NAME, the names are what they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rmiseg.models.conversion.family import BODY, Family, conv_norm

ASPP = r"decoder\.(?:aspp|0)"  # its name since version 0.5, and before

SMP = Family(
    title="segmentation-models-pytorch",
    marks=(r"encoder\.", r"segmentation_head\."),
    table=(
        (r"encoder\.model\.", BODY),
        (r"encoder\.", BODY),
        *conv_norm(rf"{ASPP}\.convs\.([0-3])", r"aspp.convs.\1"),
        *conv_norm(rf"{ASPP}\.convs\.4", "aspp.image_pooling.project", "1", "2"),
        *conv_norm(rf"{ASPP}\.project", "aspp.project"),
        *conv_norm(r"decoder", "refine", "(?:conv|1)", "(?:bn|2)"),
        (r"segmentation_head\.0\.", "classifier."),
    ),
    needed=r"(?:decoder|segmentation_head)\.",
    output_stride=8,
    options=(("align_corners", True),),  # by which it upsamples
)


def saved_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a model's class, of those that `save_pretrained` wrote, that are no options of rmiseg."""
    further = ("encoder_depth", "encoder_output_indices", "upsampling")
    return {n: value for n, value in settings.items() if n.startswith(("decoder_", "psp_")) or n in further}
