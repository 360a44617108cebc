"""The model card of a model: the README.md that model hubs show."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rmiseg.config.options import POOLED
from rmiseg.data.classes import ClassTable, hex_of
from rmiseg.inference.checkpoint import Checkpoint
from rmiseg.runtime.words import percent, percents, scope_of_mean


@dataclass(frozen=True)
class CardFacts:
    """Facts that a card states beside what the model knows of itself.

    Attributes:
        license: Identifier of the model's licence, such as cc-by-4.0; None if nobody has said.
        training: How it was trained: names and values.
        evaluation: The content of scores.json of an evaluation of this model; None if there is none.
    """

    license: str | None = None
    training: Mapping[str, str] = field(default_factory=dict)
    evaluation: Mapping[str, Any] | None = None


def card_text(description: Checkpoint, channels: int, facts: CardFacts) -> str:
    """The card in Markdown, without the hub's header.

    Args:
        description: The model; its weights are not needed.
        channels: Number of bands of its images.
        facts: What else is known.
    """
    name, data = _as_text(str(description)), _data(description)
    pixels = "RGB (H, W, 3) uint8" if channels == 3 else f"{channels} bands (H, W, {channels}) uint8"
    parts = [
        f"# {name}, {len(description.classes)} classes\n",
        f"A model for semantic segmentation, trained with rmiseg on {data}.\n",
        _USE.format(pixels=pixels, channels=channels),
        *_classes(description.classes, facts.evaluation),
        *_scores(description, facts.evaluation),
        *_training(description, facts.training),
        *_limits(description, channels, facts.evaluation),
        "## Licence\n",
        f"{_as_text(facts.license)}." if facts.license else "Not stated. Ask whoever published the model.",
        f"The terms of {data} hold beside it.\n",
    ]
    return "\n".join(parts)


_USE = """\
```python
from rmiseg.inference.predictor import Predictor

predictor = Predictor.from_run("folder/with/these/files")
ids = predictor(pixels)  # {pixels} to class ids (H, W) uint8
```

As a PyTorch module, from uint8 images (N, {channels}, H, W) to logits (N, C, H, W), also by the name of a
repository:

```python
from rmiseg.inference.segmenter import Segmenter

segmenter = Segmenter.from_pretrained("folder/with/these/files")
logits = segmenter(images)
```
"""


def _data(description: Checkpoint) -> str:
    own = description.data.name == "folder"
    return "a data set of its owner" if own else f"the data set {_as_text(description.data.name)}"


def _classes(classes: ClassTable, evaluation: Mapping[str, Any] | None) -> Iterator[str]:
    yield "## Classes\n"
    scored = evaluation["classes"] if evaluation else {}
    yield "| class id | name | color |" + (" IoU % | 95 % interval |" if scored else "")
    yield "|---:|---|---|" + ("---:|---:|" if scored else "")
    for index, (name, color) in enumerate(zip(classes.names, classes.palette)):
        row = f"| {index} | {_as_text(name)} | {hex_of(color)} |"
        if name in scored:
            row += f" {percent(scored[name]['iou'])} | {percents(scored[name]['iou_interval'])} |"
        yield row
    yield ""


def _scores(description: Checkpoint, evaluation: Mapping[str, Any] | None) -> Iterator[str]:
    yield "## Scores\n"
    each = " each" if description.members > 1 else ""
    after = f"after {description.step} training steps{each}, at full image size"
    parts = f", each by that of the {description.members} networks which had not seen it"
    scores = {name: score for name, score in description.scores.items() if math.isfinite(score)}
    if evaluation:
        intervals = evaluation["intervals"]
        if evaluation["split"] == POOLED:
            yield f"On the {evaluation['images']} training images{parts}, {after}:\n"
        else:
            yield f"On the {evaluation['images']} images of the split {_as_text(evaluation['split'])}, {after}:\n"
        yield "| score | % | 95 % interval |\n|---|---:|---:|"
        for name, interval in intervals.items():
            scope = _scope(evaluation) if name.endswith("mean_iou") else ""
            yield f"| {_as_text(name)}{scope} | {percent(evaluation[name])} | {percents(interval)} |"
        yield "\nThe intervals say how much the scores depend on which images are in the split (bootstrap over images),"
        yield "and nothing of how much another training would differ.\n"
    elif scores:
        where = f"training images{parts}," if description.members > 1 else "validation split"
        yield f"On the {where} {after}:\n\n| score | % |\n|---|---:|"
        for name, score in scores.items():
            yield f"| {_as_text(name)} | {percent(score)} |"
        yield ""
    else:
        yield "It was not evaluated.\n"


def _training(description: Checkpoint, training: Mapping[str, str]) -> Iterator[str]:
    if training:
        yield "## Training\n\n| | |\n|---|---|"
        facts = {**training, "steps": str(description.step)}
        if description.members > 1:
            facts["networks"] = f"{description.members}, each trained on the images but for a part of them"
        for name, value in facts.items():
            yield f"| {_as_text(name)} | {_as_text(value)} |"
        yield ""


def _limits(description: Checkpoint, channels: int, evaluation: Mapping[str, Any] | None) -> Iterator[str]:
    yield "## Limits\n"
    yield "- Every pixel gets one of these classes, whatever the image shows; it never says that it does not know."
    yield "- The scores hold for images like those of its data set; on others they are not known."
    yield "- The checkpoint may have been chosen by the images that it is scored on, which makes scores a little high."
    if channels != 3 or description.data.value_range is not None:
        scaled = ", scaled to 0 to 255 from `value_range` in config.json" if description.data.value_range else ""
        yield f"- Images have {channels} bands{scaled}."
    if description.data.image_scale != 1:
        yield f"- It works on images resized by {description.data.image_scale:g}: the finest things in them are lost."
    if evaluation:
        classes = evaluation["classes"]
        unseen = [name for name, row in classes.items() if row["iou"] is None]
        seen = sorted((row["iou"], name) for name, row in classes.items() if row["iou"] is not None)
        if seen:
            weak = ", ".join(f"{_as_text(name)} ({percent(iou)} %)" for iou, name in seen[: min(3, len(seen) - 1)])
            yield f"- The classes with the lowest IoU: {weak or '-'}."
        if unseen:
            yield f"- In none of the images that it was scored on: {', '.join(map(_as_text, unseen))}."
    yield ""


def _scope(evaluation: Mapping[str, Any]) -> str:
    """The classes that a mean is taken of, if they are not all; see `scope_of_mean`."""
    found = [row["iou"] is not None for row in evaluation["classes"].values()]
    return scope_of_mean(sum(found), len(found))


def _as_text(text: str) -> str:
    """Text in one line of Markdown, whatever is in it: no HTML, no links, and no ends of table cells."""
    return re.sub(r"([\\`\[\]|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
