"""Files of timm: a classification model, or its feature extractor; and backbones that are named as timm names them."""

from __future__ import annotations

from rmiseg.models.conversion.family import BODY, Family

TIMM = Family(
    title="timm",
    marks=(),
    table=((r"(?:body\.)?", BODY),),
    unused=(r"(?:fc|classifier|head\.fc)\.",),
)
