"""Checkpoints of the code of the RMI paper: {"state_dict": ..., "global_step": ..., "optimizer": ...}."""

from __future__ import annotations

from rmiseg.models.conversion.family import BODY, Family, conv_norm

ORIGINAL = Family(
    title="the code of the RMI paper",
    marks=(r"backbone\.", r"(?:aspp\.aspp1|psp_module)\."),
    table=(
        (r"backbone\.", BODY),
        (r"aspp\.aspp1\.atrous_conv\.", "aspp.convs.0.conv."),
        (r"aspp\.aspp2\.atrous_conv\.", "aspp.convs.1.conv."),
        (r"aspp\.aspp3\.atrous_conv\.", "aspp.convs.2.conv."),
        (r"aspp\.aspp4\.atrous_conv\.", "aspp.convs.3.conv."),
        (r"aspp\.aspp1\.bn\.", "aspp.convs.0.norm."),
        (r"aspp\.aspp2\.bn\.", "aspp.convs.1.norm."),
        (r"aspp\.aspp3\.bn\.", "aspp.convs.2.norm."),
        (r"aspp\.aspp4\.bn\.", "aspp.convs.3.norm."),
        *conv_norm(r"aspp\.global_avg_pool", "aspp.image_pooling.project", "1", "2"),
        *conv_norm(r"aspp", "aspp.project", "conv1", "bn1"),
        *conv_norm(r"decoder", "low_level", "conv1", "bn1"),
        *conv_norm(r"decoder\.last_conv", "decoder.0"),
        *conv_norm(r"decoder\.last_conv", "decoder.1", "3", "4"),
        (r"decoder\.last_conv\.7\.", "classifier."),
        (r"last_conv\.", "classifier."),
        *conv_norm(r"psp_module\.pools\.(\d)", r"pyramid.levels.\1.project", "1", "2"),
        *conv_norm(r"psp_module\.fuse_conv", "classifier.0"),
        (r"main_branch\.", "classifier.2."),
        *conv_norm(r"aux_branch", "auxiliary.0"),
        (r"aux_branch\.4\.", "auxiliary.2."),
    ),
    needed=r"(?:aspp|psp_module|decoder|last_conv|main_branch)\.",
    unused=(r"criterion\.",),
)
