"""Names of the entries of other programs' files, for those of this package: the tables of `rmiseg.models.conversion`
the other way round, written out apart from them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

ORIGINAL = [
    (r"backbone\.body\.", "backbone."),
    (r"aspp\.convs\.(\d)\.conv\.", lambda m: f"aspp.aspp{int(m[1]) + 1}.atrous_conv."),
    (r"aspp\.convs\.(\d)\.norm\.", lambda m: f"aspp.aspp{int(m[1]) + 1}.bn."),
    (r"aspp\.image_pooling\.project\.conv\.", "aspp.global_avg_pool.1."),
    (r"aspp\.image_pooling\.project\.norm\.", "aspp.global_avg_pool.2."),
    (r"aspp\.project\.conv\.", "aspp.conv1."),
    (r"aspp\.project\.norm\.", "aspp.bn1."),
    (r"low_level\.conv\.", "decoder.conv1."),
    (r"low_level\.norm\.", "decoder.bn1."),
    (r"decoder\.0\.conv\.", "decoder.last_conv.0."),
    (r"decoder\.0\.norm\.", "decoder.last_conv.1."),
    (r"decoder\.1\.conv\.", "decoder.last_conv.3."),
    (r"decoder\.1\.norm\.", "decoder.last_conv.4."),
    (r"pyramid\.levels\.(\d)\.project\.conv\.", r"psp_module.pools.\1.1."),
    (r"pyramid\.levels\.(\d)\.project\.norm\.", r"psp_module.pools.\1.2."),
    (r"classifier\.0\.conv\.", "psp_module.fuse_conv.0."),
    (r"classifier\.0\.norm\.", "psp_module.fuse_conv.1."),
    (r"classifier\.2\.", "main_branch."),
    (r"auxiliary\.0\.conv\.", "aux_branch.0."),
    (r"auxiliary\.0\.norm\.", "aux_branch.1."),
    (r"auxiliary\.2\.", "aux_branch.4."),
]
ENCODING = [
    (r"backbone\.body\.", "pretrained."),
    (r"aspp\.convs\.(\d)\.conv\.", r"head.aspp.b\1.0."),
    (r"aspp\.convs\.(\d)\.norm\.", r"head.aspp.b\1.1."),
    (r"aspp\.image_pooling\.project\.conv\.", "head.aspp.b4.gap.1."),
    (r"aspp\.image_pooling\.project\.norm\.", "head.aspp.b4.gap.2."),
    (r"aspp\.project\.conv\.", "head.aspp.project.0."),
    (r"aspp\.project\.norm\.", "head.aspp.project.1."),
    (r"refine\.conv\.", "head.block.0."),
    (r"refine\.norm\.", "head.block.1."),
    (r"pyramid\.levels\.(\d)\.project\.conv\.", lambda m: f"head.conv5.0.conv{int(m[1]) + 1}.0."),
    (r"pyramid\.levels\.(\d)\.project\.norm\.", lambda m: f"head.conv5.0.conv{int(m[1]) + 1}.1."),
    (r"classifier\.0\.conv\.", "head.conv5.1."),
    (r"classifier\.0\.norm\.", "head.conv5.2."),
    (r"classifier\.2\.", "head.conv5.5."),
    (r"classifier\.", "head.block.4."),
    (r"auxiliary\.0\.conv\.", "auxlayer.conv5.0."),
    (r"auxiliary\.0\.norm\.", "auxlayer.conv5.1."),
    (r"auxiliary\.2\.", "auxlayer.conv5.4."),
]
MMSEGMENTATION = [
    (r"backbone\.body\.conv1\.", "backbone.stem."),
    (r"backbone\.body\.bn1\.", "backbone.stem.7."),
    (r"backbone\.body\.", "backbone."),
    (r"pyramid\.levels\.(\d)\.project\.conv\.", r"decode_head.psp_modules.\1.1.conv."),
    (r"pyramid\.levels\.(\d)\.project\.norm\.", r"decode_head.psp_modules.\1.1.bn."),
    (r"classifier\.0\.conv\.", "decode_head.bottleneck.conv."),
    (r"classifier\.0\.norm\.", "decode_head.bottleneck.bn."),
    (r"classifier\.2\.", "decode_head.conv_seg."),
    (r"auxiliary\.0\.conv\.", "auxiliary_head.convs.0.conv."),
    (r"auxiliary\.0\.norm\.", "auxiliary_head.convs.0.bn."),
    (r"auxiliary\.2\.", "auxiliary_head.conv_seg."),
]


def _name(ours: str, table: list) -> str:
    for pattern, theirs in table:
        renamed, count = re.subn(f"^{pattern}", theirs, ours)
        if count:
            return renamed
    raise ValueError(ours)


def original_names(head: str) -> Callable[[str], str]:
    last = "decoder.last_conv.7." if head == "deeplabv3plus" else "last_conv."

    def name(ours: str) -> str:
        return "model." + _name(ours, [*ORIGINAL, (r"classifier\.", last)])

    return name


def encoding_names(ours: str) -> str:
    return _name(ours, ENCODING)


def mmsegmentation_names(ours: str) -> str:
    return _name(ours, MMSEGMENTATION)
