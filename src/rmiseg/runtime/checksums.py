"""Checksums inside of files, by which damage is found when they are read: a flipped bit of a disk or a cable.

A file that is sealed holds eight hexadecimal digits, the CRC-32 of the whole file with zeros in their place: any
flipped bit changes it, and so does any burst of up to 32. It takes a fraction of the time of writing the file. It is no
protection against somebody who means harm, who can compute it too. Files without one are taken as they are.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

from rmiseg.runtime.files import to_json

ZEROS = b"00000000"
BLOCK = 1 << 20

ZIP_END = b"PK\x05\x06"
ZIP_COMMENT = b"rmiseg crc32 "
"""Beginning of the comment at the very end of a sealed zip file; the digits follow."""
HEADER_ENTRY = "crc32"
"""Entry of the metadata of a sealed safetensors file, and of sealed JSON, that holds the digits."""
HEADER_KEY = f'"{HEADER_ENTRY}":"'.encode()


class DamagedError(ValueError):
    """A file does not have the checksum that it had when it was written."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is damaged: it is not what was written, by its checksum. Take it from a copy, or make it again"
        )


def seal_zip(file: IO[bytes]) -> None:
    """Seal a zip file, as torch.save writes it, with a comment.

    Args:
        file: The file, whole, open for reading and writing.
    """
    comment = ZIP_COMMENT + ZEROS
    file.seek(-2, os.SEEK_END)  # the length of the comment is the last that the format asks for
    file.write(len(comment).to_bytes(2, "little") + comment)
    _seal(file, file.tell() - len(ZEROS))


def check_zip(path: Path) -> None:
    """See whether a zip file is what was written, if it is sealed.

    Raises:
        DamagedError: It is not.
        OSError: It cannot be read.
    """
    length = len(ZIP_COMMENT) + len(ZEROS)
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 256))
        end = file.read()
        announced = end[end.rfind(ZIP_END) :][20:22] == length.to_bytes(2, "little")
        in_place = end[-length:].startswith(ZIP_COMMENT)
        if (announced or ZIP_COMMENT in end) and not (in_place and _is_sealed(file, size - len(ZEROS))):
            raise DamagedError(path)


def seal_safetensors(path: Path) -> None:
    """Seal a safetensors file whose metadata have an entry `crc32` of eight zeros."""
    with open(path, "r+b") as file:
        _seal(file, _header(file).index(HEADER_KEY + ZEROS) + len(HEADER_KEY))


def check_safetensors(path: Path) -> None:
    """See whether a safetensors file is what was written, if it is sealed; raises as `check_zip`."""
    with open(path, "rb") as file:
        header = _header(file)
        at = header.find(HEADER_KEY)
        if HEADER_ENTRY.encode() in header and not (at >= 0 and _is_sealed(file, at + len(HEADER_KEY))):
            raise DamagedError(path)


def file_crc32(path: Path) -> str:
    """CRC-32 of a file, eight hexadecimal digits."""
    with open(path, "rb") as file:
        return f"{_crc32(file, 0):08x}"


def json_crc32(content: Any) -> str:
    """CRC-32 of values of JSON, in whatever order and layout they are written."""
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"


def content_crc32(content: Mapping[str, Any], apart: Collection[str] = ()) -> str:
    """CRC-32 of values as JSON holds them, but for a checksum among them and those that are apart: eight digits."""
    kept = {name: value for name, value in content.items() if name != HEADER_ENTRY and name not in apart}
    return json_crc32(json.loads(to_json(kept)))


def sealed(content: Mapping[str, Any], apart: Collection[str] = ()) -> dict[str, Any]:
    """Values of JSON with a checksum of themselves, see `content_crc32`."""
    return {**content, HEADER_ENTRY: content_crc32(content, apart)}


def unsealed(content: Any) -> dict[str, Any]:
    """The values that `sealed` took, as a file holds them; older files hold no checksum.

    Raises:
        ValueError: They are not what was written.
    """
    if not isinstance(content, dict):
        raise ValueError("it is no mapping of names to values")
    if HEADER_ENTRY in content and content[HEADER_ENTRY] != content_crc32(content):
        raise ValueError("it is damaged: it is not what was written, by its checksum")
    return {name: value for name, value in content.items() if name != HEADER_ENTRY}


def _header(file: IO[bytes]) -> bytes:
    """The beginning of a safetensors file: the length of its header in eight bytes, and the header, as JSON."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(8)
    return start + file.read(min(int.from_bytes(start, "little"), size))


def _seal(file: IO[bytes], at: int) -> None:
    digits = _sealed_crc32(file, at)
    file.seek(at)
    file.write(digits)


def _is_sealed(file: IO[bytes], at: int) -> bool:
    file.seek(at)
    return file.read(len(ZEROS)) == _sealed_crc32(file, at)


def _sealed_crc32(file: IO[bytes], at: int) -> bytes:
    """The digits that seal a file at this place."""
    file.seek(0)
    value = zlib.crc32(ZEROS, _crc32(file, 0, at))
    file.seek(at + len(ZEROS))
    return b"%08x" % _crc32(file, value)


def _crc32(file: IO[bytes], value: int, length: int | None = None) -> int:
    """Continue a CRC-32 with the next bytes of a file, or all that are left."""
    while block := file.read(BLOCK if length is None else min(BLOCK, length)):
        value = zlib.crc32(block, value)
        length = None if length is None else length - len(block)
    return value
