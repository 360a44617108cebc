"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import math
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]


TEMPORARY = re.compile(r"\.(.+)\.(\d+)\.tmp", re.DOTALL)
"""Temporary names: that of the file, and the number of the process."""


_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069]")
"""Characters that move, color or erase, or turn the direction of reading; line breaks and tabs are none."""


def visible(text: str) -> str:
    """Return a text with escapes, such as \\x1b, in place of characters that tell a terminal something."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode-escape").decode(), text)


def printable(name: str) -> str:
    """Return the name of a file as text of UTF-8, with \\udcXX in place of each byte that is none."""
    return name.encode(errors="backslashreplace").decode()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; renamed to `path` at the end, removed on an error.

    Of a symbolic link, what it points to is replaced; a device or pipe, such as /dev/stdout, is written to.

    Raises:
        FileExistsError: The path is a symbolic link to nowhere: what was meant to be there is not known.
    """
    if _is_device(path):
        with tempfile.TemporaryDirectory() as folder, _named(path):
            yield Path(folder, "content")
            with open(Path(folder, "content"), "rb") as content, open(path, "ab") as device:
                shutil.copyfileobj(content, device)
        return
    if path.is_symlink():
        if not path.exists():
            raise FileExistsError(
                f"{path} is a symbolic link to {os.readlink(path)}, where there is nothing; remove the link"
            )
        path = path.resolve()
    temporary = path.with_name(f".{_short(path.name)}.{os.getpid()}.tmp")
    try:
        with _named(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file of UTF-8, whole or not at all; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_rows(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file, whole or not at all. Names of files, which need not be UTF-8, keep their bytes."""
    with (
        replacing(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        csv.writer(file).writerows(rows)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Give an error of the system that names no file, such as of a disk that is full, the name of this one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def _is_device(path: Path) -> bool:
    """Tell whether a path is no file that another can take the place of, though /dev/stdout may lead to one."""
    other = path.exists() and not path.is_file() and not path.is_dir()
    return other or path.absolute().parts[1:2] in (("dev",), ("proc",))


def leftovers(folder: Path, names: Collection[str] | None = None) -> list[Path]:
    """Temporary files in a folder that `replacing` left when its process was killed, or that it is writing still.

    Args:
        folder: The folder.
        names: Names of the files that they stand for; by default any.
    """
    short = None if names is None else {_short(name) for name in names}
    found = [(path, TEMPORARY.fullmatch(path.name)) for path in folder.glob(".*.tmp")]
    return [path for path, match in found if match and (short is None or match[1] in short)]


def remove_leftovers(folder: Path, names: Collection[str]) -> None:
    """Remove what processes left that were killed while they wrote files of these names, where no lock says so."""
    for path in leftovers(folder, names):
        match = TEMPORARY.fullmatch(path.name)
        if match and not _is_running(int(match[2])):
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _short(name: str) -> str:
    """The name of a file, or a digest of it where it leaves no room for more: a name has 255 bytes."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= 200 else hashlib.sha256(encoded).hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[Callable[[], bool]]:
    """Hold a lock on the file `path`, which is made. It ends with this process, however that ends.

    Yields:
        Returns whether the file is still there, and not another in its place.

    Raises:
        BlockingIOError: Another process holds it.
        OSError: It cannot be made, or is a symbolic link.
    """
    with open(path, "a+", encoding="utf-8", opener=_no_link) as file:
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock, which loader processes would inherit
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise BlockingIOError(f"{path.parent} is in use by {holder}; wait for it, or end it") from error
            # else a file system without locks
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield lambda: path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def cell(text: str) -> str:
    """Text for a cell of a CSV file: with an apostrophe before what a spreadsheet would take for a formula."""
    return f"'{text}" if text[:1] in tuple("=+-@\t\r\n") else text


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: It is not there, or cannot be read.
        ValueError: It is no file, no JSON in UTF-8, names a key twice, or holds what is no number.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for, and a device has no end
        raise ValueError("it is no file")
    try:
        return parse_json(path.read_bytes().decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 (byte 0x{error.object[error.start]:02x})") from error


def parse_json(text: str) -> Any:
    """Return what a text of JSON holds.

    Raises:
        ValueError: It is damaged, nested without end, names a key twice, or holds NaN or Infinity.
    """

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"it holds {constant}, which is no number")

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            double = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"an object in it has the key {double[:100]!r} twice")
        return found

    try:
        return json.loads(text, parse_constant=refuse, object_pairs_hook=mapping)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is damaged, it may be cut short: {error}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def to_json(value: Any) -> str:
    """JSON text of plain values; what is not a number becomes null, since JSON has no NaN."""

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite(value), indent=2, allow_nan=False) + "\n"
