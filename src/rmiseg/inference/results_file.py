"""The file that says what the results in a folder were made with, and where they are."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rmiseg.config.recipes import shortened
from rmiseg.runtime.files import read_json, replacing, to_json

RESULTS_FILE = "predictions.json"
"""Marks a folder of results, whose pictures are not taken for images to segment."""
MAY_DIFFER = ("checkpoint", "write")
"""Entries that may be others when results are added to a folder: where the same checkpoint lies, and the kinds of
files."""


def read_results_file(out: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the results in a folder were made with; nothing if there are none.

    Args:
        out: The folder.
        about: What further results will be made with.

    Raises:
        ValueError: The results are of another checkpoint, or were made with other settings.
    """
    path = out / RESULTS_FILE
    if not path.is_file():
        return {}
    try:
        before: dict[str, Any] = read_json(path)
        differing = _differing(before, about)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); use --overwrite or another --out") from error
    if differing:
        raise ValueError(f"the results in {out} were made with {differing}; use --overwrite or another --out")
    return before


def _differing(before: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Say what results were made with that others are not; "" if there is nothing."""
    now = json.loads(to_json(about))
    names = [name for name in now if name not in MAY_DIFFER and before.get(name, now[name]) != now[name]]
    if "sha256" in names:
        was, is_now = before.get("checkpoint"), now["checkpoint"]
        same = "as it was then, and it has changed since" if was == is_now else f"not {is_now}"
        return f"the checkpoint {was}, {same}"
    texts = [f"{name} {shortened(str(before[name]), 100)}, not {shortened(str(now[name]), 100)}" for name in names]
    return texts[0] if texts else ""


def other_results(out: Path, about: Mapping[str, Any], replaced: Collection[Path]) -> list[Path]:
    """Find results in a folder that were made with something else, and stay.

    Args:
        out: The folder.
        about: What further results will be made with.
        replaced: Files and folders that these take the place of.
    """
    try:
        if not _differing(read_json(out / RESULTS_FILE), about):
            return []
    except (OSError, ValueError, AttributeError):
        return []
    files = [file for folder in _folders(out / RESULTS_FILE) for file in sorted((out / folder).rglob("[!.]*"))]
    return [file for file in files if file.is_file() and not {file, *file.parents}.intersection(replaced)]


def write_results_file(out: Path, about: Mapping[str, Any], before: Mapping[str, Any], folders: Iterable[str]) -> None:
    """Say what the results in a folder are made with from now on.

    Args:
        out: The folder.
        about: What they are made with.
        before: What `read_results_file` returned, if they are added to others; else nothing.
        folders: Names of the folders in it that hold results; those that are there already may hold more.
    """
    path = out / RESULTS_FILE
    known = {*_folders(path), *folders}
    with replacing(path) as temporary:
        temporary.touch()
        # By the clock of the file system, which that of this machine may differ from.
        since = before.get("since", 0) if before else temporary.stat().st_mtime_ns
        temporary.write_text(to_json({**about, "folders": sorted(known), "since": since}), encoding="utf-8")


def result_folders(root: Path, files: Sequence[Path]) -> set[Path]:
    """Return the folders of earlier results that are beside or above files, in a folder or below it."""
    folders = {file.parent for file in files}
    folders |= {above for folder in folders for above in folder.parents if above.is_relative_to(root)}
    return {folder / name for folder in folders for name in _folders(folder / RESULTS_FILE)}


def _folders(path: Path) -> list[str]:
    """Names of the folders of results beside a file; none if it is no such file."""
    try:
        about = read_json(path)
        return [str(name) for name in about.get("folders", about["write"])]  # older files name the kinds alone
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return []
