"""Fingerprints of images, which tell a training that goes on, and an evaluation, that its data have changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from rmiseg.config import DataConfig
from rmiseg.data.image_files.volumes import is_slice
from rmiseg.data.images import LabeledImages, Split
from rmiseg.data.spread import spread
from rmiseg.runtime.words import some

SAMPLED = 32
"""Images of a split whose content is looked at; all of them where there are no more."""
MOST_BYTES = 1 << 23
"""Bytes of an image file that are looked at."""


def fingerprint(images: LabeledImages) -> dict[str, Any]:
    """Plain values that change when images do: their number, names and classes, and the content of some files.

    Neither the place of the files nor their dates count. Of images that are no files the content is not looked at,
    since reading them here may open what loader processes must open for themselves; a data set of somebody's own can
    have an attribute `fingerprint`, a string or number that changes with its content.
    """
    origin = images.origin
    content = _content(images) if isinstance(images, Split) else str(getattr(origin, "fingerprint", ""))
    return {
        "images": len(images),
        "classes": list(images.classes.names),
        "names": _digest("\n".join(images.names).encode(errors="surrogateescape")),
        "content": content,
    }


def fingerprints(data: DataConfig, train: LabeledImages, val: LabeledImages) -> dict[str, dict[str, Any]]:
    """The fingerprints of the images to train on and to score on, by the names of their splits."""
    return {data.scored_split: fingerprint(val), data.train_split: fingerprint(train)}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The change of the data, in words; None if nothing has, or it is not known what was before.

    Args:
        before: Fingerprints by the names of splits.
        now: Likewise.
    """
    for split, new in now.items():
        old = before.get(split, {})
        if old.get("classes", new["classes"]) != new["classes"]:
            return (
                f"the classes of split {split} are {some(new['classes'], 8)}, and were {some(old['classes'], 8)} before"
            )
        if old.get("images", new["images"]) != new["images"]:
            return f"split {split} has {new['images']} images, and had {old['images']} before"
        if old.get("names", new["names"]) != new["names"]:
            return f"the images of split {split} have other names or another order than before"
        if old.get("content", new["content"]) != new["content"]:
            return f"images or masks of split {split} have another content than before"
    return None


def _content(images: Split) -> str:
    """Digest of the bytes of image files and the class ids of masks, of some images spread over the split."""
    digest = hashlib.sha256()
    for index in spread(len(images), SAMPLED):
        try:
            path = images.samples[index].image
            with open(path.parent if is_slice(path) else path, "rb") as file:
                digest.update(_digest(file.read(MOST_BYTES)).encode())
            digest.update(images.read_mask(index).tobytes())
        except (ValueError, OSError):  # which is said when it is read for training
            digest.update(b"unreadable")
    return digest.hexdigest()[:32]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
