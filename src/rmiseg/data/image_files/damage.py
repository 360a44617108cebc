"""Damage of image files that decoders do not see."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

BLOCK = 1 << 20
"""Bytes that are read at once."""


def damaged(reason: str) -> str:
    """Say that a file is damaged, and what to do.

    Args:
        reason: What a decoder says of it.
    """
    return f"it is damaged ({reason or 'it breaks off'}): was it copied to the end? Copy it again, or save it anew"


def check_png(path: Path) -> None:
    """Compare the checksums of the pixels of a PNG file, at which Pillow does not look.

    Of what was changed on a disk or in a cable it makes other pixels. What is missing at the end, it says itself.

    Raises:
        ValueError: One is wrong.
    """
    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            size, checksum = int.from_bytes(head[:4], "big"), zlib.crc32(head[4:])
            if head[4:] != b"IDAT":  # the others Pillow compares
                file.seek(size + 4, os.SEEK_CUR)
                continue
            for begin in range(0, size, BLOCK):
                checksum = zlib.crc32(file.read(min(BLOCK, size - begin)), checksum)
            if len(stored := file.read(4)) == 4 and checksum != int.from_bytes(stored, "big"):
                raise ValueError(damaged("the checksum of its pixels is wrong"))
