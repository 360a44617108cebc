"""Files of PyTorch-Encoding: its DeepLabv3 and PSPNet. Its backbones alone have timm's names."""

from __future__ import annotations

from rmiseg.models.conversion.family import BODY, Family, conv_norm

PYTORCH_ENCODING = Family(
    title="PyTorch-Encoding",
    marks=(r"pretrained\.", r"head\."),
    table=(
        (r"pretrained\.", BODY),
        *conv_norm(r"head\.aspp\.b([0-3])", r"aspp.convs.\1"),
        *conv_norm(r"head\.aspp\.b4\.gap", "aspp.image_pooling.project", "1", "2"),
        *conv_norm(r"head\.aspp\.project", "aspp.project"),
        *conv_norm(r"head\.block", "refine"),
        (r"head\.block\.4\.", "classifier."),
        *conv_norm(r"head\.conv5\.0\.conv1", "pyramid.levels.0.project"),
        *conv_norm(r"head\.conv5\.0\.conv2", "pyramid.levels.1.project"),
        *conv_norm(r"head\.conv5\.0\.conv3", "pyramid.levels.2.project"),
        *conv_norm(r"head\.conv5\.0\.conv4", "pyramid.levels.3.project"),
        *conv_norm(r"head\.conv5", "classifier.0", "1", "2"),
        (r"head\.conv5\.5\.", "classifier.2."),
        *conv_norm(r"auxlayer\.conv5", "auxiliary.0"),
        (r"auxlayer\.conv5\.4\.", "auxiliary.2."),
    ),
    needed=r"head\.",
    unused=(r"pretrained\.fc\.",),
    output_stride=8,
    options=(("align_corners", True),),
)
