"""Places that are written to: what is in their way, seen before there is work to lose, and errors of files in words."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from rmiseg.runtime.files import TEMPORARY

_REASONS = {
    errno.EACCES: "no permission for {}",
    errno.EPERM: "no permission for {}",
    errno.EROFS: "{} lies where nothing can be written",
    errno.ENOSPC: "no space is left on the disk of {}",
    errno.EDQUOT: "no more may be written to the disk of {}: its quota is used up",
    errno.EFBIG: "{} would be larger than files may be here",
    errno.EIO: "the disk of {} fails",
    errno.EMFILE: "too many files are open to open {}, too",
    errno.ENOENT: "{} does not exist, or cannot be made",
    errno.EISDIR: "{} is a folder, where a file is to be",
    errno.ENOTEMPTY: "{} is a folder that is not empty",
    errno.ELOOP: "{} is a symbolic link that leads to itself, or is one that is not followed",
    errno.ENAMETOOLONG: "the name of {} is too long",
}

_OF_SHELLS = re.compile(r"~|\$\w+|\$\{\w+\}|%\w+%")
"""Names in whose place shells, and no programs, put a folder."""


def check_places(folders: Iterable[Path] = (), files: Iterable[Path] = ()) -> None:
    """See whether something else is in the place of folders and files that are to be written.

    Raises:
        NotADirectoryError: A file is where a folder is to be, or above one; or a path is as only shells understand it.
        IsADirectoryError: A folder is where a file is to be.
        FileExistsError: A pipe or a device is.
    """
    for path in folders:
        if path.parts and _OF_SHELLS.fullmatch(path.parts[0]):
            raise NotADirectoryError(
                f"{path} would be a folder called {path.parts[0]}: it is a shell that puts another in its place. Write "
                f"the whole path"
            )
        if "\0" in str(path):
            raise NotADirectoryError(f"{str(path)!r} holds a zero byte, as no path does")
        if file := _file_above(path):
            raise NotADirectoryError(f"{file} is a file, where a folder is to be: move it away, or name another --out")
    for path in files:
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder, where a file is to be: move it away, or name another place")
        if path.exists() and not path.is_file():
            raise FileExistsError(f"{path} is a pipe or a device, where a file is to be: move it away")


def check_room(path: Path) -> None:
    """See whether a folder can be made, or be written to, without making it.

    Raises:
        OSError: It cannot; the message is in words.
    """
    check_places([path])
    above = next(each for each in (path.absolute(), *path.absolute().parents) if each.is_dir())
    try:
        Path(tempfile.mkdtemp(prefix=".rmiseg-", dir=above)).rmdir()
    except OSError as error:
        raise type(error)(f"nothing can be written to {path}: {said_of(error)}") from error


def writable_folder(path: Path) -> Path:
    """Make a folder, if it is not there, and see whether files can be written to it.

    Raises:
        OSError: It cannot be made, or not be written to; the message is in words.
    """
    check_places([path])
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"the folder {path} cannot be made: {said_of(error)}") from error
    if not os.access(path, os.W_OK):
        raise PermissionError(f"no permission to write to the folder {path}; name another")
    return path


def said_of(error: Exception) -> str:
    """Say what an error is: one of the system in words with its file, any other as it says itself."""
    if isinstance(error, FileNotFoundError) and str(error.strerror).startswith("No usable temporary directory"):
        found = str(error.strerror).replace("No usable", "there is no")
        return f"{found} that can be written to: is the disk full? TMPDIR names another"
    if not isinstance(error, OSError) or error.errno is None or error.filename is None:
        return str(error)
    path = _meant(error.filename if error.filename2 is None else error.filename2)
    if error.errno in (errno.ENOTDIR, errno.EEXIST) and (file := _file_above(path)):
        return f"{file} is a file, where a folder is to be: move it away, or name another --out"
    if error.errno in _REASONS:
        return _REASONS[error.errno].format(path)
    return f"{path}: {error.strerror}"


def _meant(name: str | bytes) -> Path:
    """The file that a temporary one stands for, see `rmiseg.runtime.files.replacing`."""
    path = Path(os.fsdecode(name))
    match = TEMPORARY.fullmatch(path.name)
    return path.with_name(match[1]) if match else path


def _file_above(path: Path) -> Path | None:
    """The file that is in the place of a folder, or of one above it; None if there is none."""
    return next((each for each in (path, *path.parents) if os.path.lexists(each) and not each.is_dir()), None)
