"""State dicts of this package's own models."""

from __future__ import annotations

from rmiseg.models.conversion.family import Family

OWN = Family(
    title="rmiseg",
    marks=(r"(?:network\.)?(?:backbone\.body\.|network\.)",),
    table=((r"network\.(?=backbone\.body\.)", ""), (r"", "")),
)
