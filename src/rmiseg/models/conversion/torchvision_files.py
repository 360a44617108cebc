"""Files of torchvision's DeepLabv3 and FCN. For its own models, torchvision:NAME, their names are what they are."""

from __future__ import annotations

from rmiseg.models.conversion.family import BODY, Family, conv_norm

TORCHVISION = Family(
    title="torchvision",
    marks=(r"backbone\.(?!body\.)", r"classifier\.\d\."),
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
    output_stride=8,
)
