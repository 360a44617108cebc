"""Checkpoints of the code of the RMI paper: {"state_dict": ..., "global_step": ..., "optimizer": ...}."""

from __future__ import annotations

from rmiseg.models.conversion.family import BODY, Family, conv_norm

PREFIX = r"(?:model\.)?"

ORIGINAL = Family(
    title="the code of the RMI paper",
    marks=(rf"{PREFIX}backbone\.", rf"{PREFIX}(?:aspp\.aspp1|psp_module)\."),
    table=(
        (rf"{PREFIX}backbone\.", BODY),
        (rf"{PREFIX}aspp\.aspp1\.atrous_conv\.", "aspp.convs.0.conv."),
        (rf"{PREFIX}aspp\.aspp2\.atrous_conv\.", "aspp.convs.1.conv."),
        (rf"{PREFIX}aspp\.aspp3\.atrous_conv\.", "aspp.convs.2.conv."),
        (rf"{PREFIX}aspp\.aspp4\.atrous_conv\.", "aspp.convs.3.conv."),
        (rf"{PREFIX}aspp\.aspp1\.bn\.", "aspp.convs.0.norm."),
        (rf"{PREFIX}aspp\.aspp2\.bn\.", "aspp.convs.1.norm."),
        (rf"{PREFIX}aspp\.aspp3\.bn\.", "aspp.convs.2.norm."),
        (rf"{PREFIX}aspp\.aspp4\.bn\.", "aspp.convs.3.norm."),
        *conv_norm(rf"{PREFIX}aspp\.global_avg_pool", "aspp.image_pooling.project", "1", "2"),
        *conv_norm(rf"{PREFIX}aspp", "aspp.project", "conv1", "bn1"),
        *conv_norm(rf"{PREFIX}decoder", "low_level", "conv1", "bn1"),
        *conv_norm(rf"{PREFIX}decoder\.last_conv", "decoder.0"),
        *conv_norm(rf"{PREFIX}decoder\.last_conv", "decoder.1", "3", "4"),
        (rf"{PREFIX}decoder\.last_conv\.7\.", "classifier."),
        (rf"{PREFIX}last_conv\.", "classifier."),
        *conv_norm(rf"{PREFIX}psp_module\.pools\.(\d)", r"pyramid.levels.\1.project", "1", "2"),
        *conv_norm(rf"{PREFIX}psp_module\.fuse_conv", "classifier.0"),
        (rf"{PREFIX}main_branch\.", "classifier.2."),
        *conv_norm(rf"{PREFIX}aux_branch", "auxiliary.0"),
        (rf"{PREFIX}aux_branch\.4\.", "auxiliary.2."),
    ),
    unused=(r"criterion\.",),
)
