"""Files of mmsegmentation: ResNets (V1 and V1c), PSPNet's head; of its other heads nothing in this package is equal."""

from __future__ import annotations

from rmiseg.models.conversion.family import BODY, Family, conv_norm

MMSEGMENTATION = Family(
    title="mmsegmentation",
    marks=(r"backbone\.", r"decode_head\."),
    table=(
        (r"backbone\.stem\.7\.", f"{BODY}bn1."),
        (r"backbone\.stem\.(\d)\.", rf"{BODY}conv1.\1."),
        (r"backbone\.", BODY),
        *conv_norm(r"decode_head\.psp_modules\.(\d)\.1", r"pyramid.levels.\1.project", "conv", "bn"),
        *conv_norm(r"decode_head\.bottleneck", "classifier.0", "conv", "bn"),
        (r"decode_head\.conv_seg\.", "classifier.2."),
        *conv_norm(r"auxiliary_head\.convs\.0", "auxiliary.0", "conv", "bn"),
        (r"auxiliary_head\.conv_seg\.", "auxiliary.2."),
    ),
    output_stride=8,
)
