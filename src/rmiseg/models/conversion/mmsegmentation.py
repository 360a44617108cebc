"""Files of mmsegmentation: the backbones that timm has too, and the heads that are equal to one of this package."""

from __future__ import annotations

from rmiseg.models.conversion.family import BODY, Family, conv_norm

HEAD = r"decode_head\."
BLOCK = r"backbone\.stages\.(\d)\.(\d+)\."
OURS = rf"{BODY}stages.\1.blocks.\2."
BESIDE_THE_HEAD = (
    # ConvNeXt
    (r"backbone\.downsample_layers\.0\.", f"{BODY}stem."),
    (r"backbone\.downsample_layers\.(\d)\.", rf"{BODY}stages.\1.downsample."),
    (rf"{BLOCK}depthwise_conv\.", f"{OURS}conv_dw."),
    (rf"{BLOCK}pointwise_conv(\d)\.", rf"{OURS}mlp.fc\3."),
    (BLOCK, OURS),
    (r"backbone\.norm(\d)\.", r"norms.\1."),
    # ResNetV1, and V1c and V1d with three convolutions at the start
    (r"backbone\.stem\.7\.", f"{BODY}bn1."),
    (r"backbone\.stem\.(\d)\.", rf"{BODY}conv1.\1."),
    (r"backbone\.", BODY),
    *conv_norm(r"auxiliary_head\.convs\.0", "auxiliary.0", "conv", "bn"),
    (r"auxiliary_head\.conv_seg\.", "auxiliary.2."),
)
"""Rows of the backbones, and of the auxiliary head that all networks have."""

DEEPLAB = Family(
    title="mmsegmentation",
    marks=(r"backbone\.", rf"{HEAD}aspp_modules\."),
    table=(
        *BESIDE_THE_HEAD,
        *conv_norm(rf"{HEAD}image_pool\.1", "aspp.image_pooling.project", "conv", "bn"),
        *conv_norm(rf"{HEAD}aspp_modules\.(\d)\.(depthwise|pointwise)_conv", r"aspp.convs.\1.\2", "conv", "bn"),
        *conv_norm(rf"{HEAD}aspp_modules\.(\d)", r"aspp.convs.\1", "conv", "bn"),
        *conv_norm(rf"{HEAD}bottleneck", "aspp.project", "conv", "bn"),
        *conv_norm(rf"{HEAD}c1_bottleneck", "low_level", "conv", "bn"),
        *conv_norm(rf"{HEAD}sep_bottleneck\.(\d)\.(depthwise|pointwise)_conv", r"decoder.\1.\2", "conv", "bn"),
        (rf"{HEAD}conv_seg\.", "classifier."),
    ),
    needed=r"(?:backbone|decode_head)\.",
    output_stride=8,
    order=((r"aspp\.project\.conv\.weight", (1, 2, 3, 4, 0)),),  # the pooled image comes first
)
PSPNET = Family(
    title="mmsegmentation",
    marks=(r"backbone\.", rf"{HEAD}psp_modules\."),
    table=(
        *BESIDE_THE_HEAD,
        *conv_norm(rf"{HEAD}psp_modules\.(\d)\.1", r"pyramid.levels.\1.project", "conv", "bn"),
        *conv_norm(rf"{HEAD}bottleneck", "classifier.0", "conv", "bn"),
        (rf"{HEAD}conv_seg\.", "classifier.2."),
    ),
    needed=r"(?:backbone|decode_head)\.",
    output_stride=8,
)
UPERNET = Family(
    title="mmsegmentation",
    marks=(r"backbone\.", rf"{HEAD}psp_modules\.", rf"{HEAD}lateral_convs\."),
    table=(
        *BESIDE_THE_HEAD,
        *conv_norm(rf"{HEAD}psp_modules\.(\d)\.1", r"levels.\1.project", "conv", "bn"),
        *conv_norm(rf"{HEAD}bottleneck", "context", "conv", "bn"),
        *conv_norm(rf"{HEAD}lateral_convs\.(\d)", r"lateral.\1", "conv", "bn"),
        *conv_norm(rf"{HEAD}fpn_convs\.(\d)", r"smooth.\1", "conv", "bn"),
        *conv_norm(rf"{HEAD}fpn_bottleneck", "fuse", "conv", "bn"),
        (rf"{HEAD}conv_seg\.", "classifier."),
    ),
    needed=r"(?:backbone|decode_head)\.",
    output_stride=32,
    order=((r"fuse\.conv\.weight", (3, 2, 1, 0)),),  # the shallowest map comes first
)
OTHER = Family(title="mmsegmentation", marks=(r"backbone\.", HEAD), table=BESIDE_THE_HEAD)
"""Networks whose head no model of this package has."""

MMSEGMENTATION = (DEEPLAB, UPERNET, PSPNET, OTHER)
"""A file is of the first that recognizes it."""
