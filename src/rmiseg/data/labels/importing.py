"""`rmiseg data import`: a data set in the layout `folder`, of what a labelling tool exported."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from rmiseg.config.commands import DataImportConfig
from rmiseg.config.registry import find, names
from rmiseg.data.classes import IGNORE_INDEX, ClassTable, index_image, voc_palette
from rmiseg.data.image_files.deep import turned
from rmiseg.data.labels.annotations import (
    BACKGROUND_NAMES,
    IGNORED_NAMES,
    Annotations,
    LabeledImage,
    LabelFormat,
    Region,
)
from rmiseg.data.labels.documents import IMPORT_FILE, Documents
from rmiseg.data.labels.drawing import DrawnLabels, draw_labels
from rmiseg.data.labels.pictures import Picture, embedded_picture, look_at
from rmiseg.data.labels.report import ImportReport
from rmiseg.data.labels.splits import assign_splits, unique_names
from rmiseg.data.labels.strangers import told
from rmiseg.data.labels.values import Size
from rmiseg.data.sets.pairing import folded
from rmiseg.runtime.files import remove_leftovers, to_json
from rmiseg.runtime.places import check_room, writable_folder
from rmiseg.runtime.progress import track
from rmiseg.runtime.words import some

BACKGROUND = "background"


def import_labels(config: DataImportConfig, console: Console | None = None) -> ImportReport:
    """Write a data set from the export of a labelling tool, as `rmiseg data import` does.

    Args:
        config: The options.
        console: Where to show progress; by default nowhere.

    Raises:
        ValueError: The format is not recognized, a file is damaged or not what it should be, or nothing can be used.
        FileNotFoundError: There is no such source.
        FileExistsError: The folder exists.
    """
    console = console or Console(quiet=True)
    out = Path(config.out)
    _check_free(out, config.overwrite)
    documents = Documents(Path(config.source), None if config.images is None else Path(config.images))
    if out.resolve() in [documents.root.resolve(), *documents.root.resolve().parents]:
        raise ValueError(f"--out {out} holds the source {documents.source}; name another folder")
    name, labels = recognized(documents, config.format)
    found = labels.read(documents)
    report = ImportReport(name, labels.TITLE, str(documents.source), unused=found.unused, notes=found.notes)
    pictures = list(_pictures(found, documents, config, report))
    if not pictures:
        lines = "".join(f"\n  {line}" for line in report.unused.lines())
        raise ValueError(f"{documents.source}: of {labels.TITLE}, no image can be used.{lines}")
    classes, ids = class_table(found, pictures, config, report)
    assign_splits(pictures, config.val, report)
    with _new_folder(out) as folder:
        stems = unique_names(pictures)
        for picture, stem in track(list(zip(pictures, stems)), "drawing", console, total=len(pictures)):
            _write(picture, stem, folder, classes, ids, found, config, report)
        if not report.labels and any(picture.labels.regions for picture in pictures):
            raise ValueError(
                f"{report.source}: no label covers a pixel of its image. Are its coordinates shares of width and "
                f"height (0 to 1)? {labels.TITLE} is read in {'shares' if name == 'yolo' else 'pixels or percent'}"
            )
        (folder / "dataset.yaml").write_text(_description(classes, report), encoding="utf-8")
        (folder / IMPORT_FILE).write_text(to_json(report.as_dict(classes)), encoding="utf-8")
    return report


def recognized(documents: Documents, name: str | None) -> tuple[str, LabelFormat]:
    """Return the name of the format of a source, and what reads it.

    Args:
        documents: The source.
        name: The name, if somebody gave it.

    Raises:
        ValueError: There is no format of that name; or none was given, and no format or several recognize the source.
    """
    if name is not None:
        made = find("labels", name).make()
        assert isinstance(made, LabelFormat)
        return name, made
    known = {each: find("labels", each).make() for each in names("labels")}
    found = {each: labels for each, labels in known.items() if labels.recognizes(documents)}
    if len(found) == 1:
        return next(iter(found.items()))
    if found:
        listed = ", ".join(f"{each} ({labels.TITLE})" for each, labels in found.items())
        raise ValueError(f"{documents.source} may be of several formats; name one with --format: {listed}")
    if documents.damaged:
        raise ValueError(next(iter(documents.damaged.values())))
    if other := told(documents):
        raise ValueError(f"{documents.source} {other}. Formats that are read: {', '.join(known)}")
    raise ValueError(
        f"{documents.source} is of no format that is known here: {', '.join(known)}. It holds "
        f"{some(documents.names, 5) or 'nothing'}. If it is of one of them, name it with --format, which says "
        f"what is wrong with it"
    )


def _pictures(
    found: Annotations, documents: Documents, config: DataImportConfig, report: ImportReport
) -> Iterator[Picture]:
    """The images that can be used, each with its labels; what cannot be is counted."""
    seen: dict[Path, LabeledImage] = {}
    unlabeled = [LabeledImage(str(path), path, path=path) for path in found.unlabeled]
    for image in [*found.images, *unlabeled]:
        image.regions = list(_usable(image, config, report))
        if not image.regions and config.empty == "leave-out":
            report.unused.add(
                "images without labels are left out (--empty background takes them as background)", image.reference
            )
            continue
        path = image.path or (None if image.embedded else documents.find_image(image.reference, image.document))
        picture = embedded_picture(image) if path is None and image.embedded else None
        if picture is None and path is None:
            report.unused.add("images are not found (--images names their folder)", image.reference)
            continue
        if path is not None:
            if path in seen:
                raise ValueError(f"the image {path} has labels twice, {_twice(seen[path].document, image.document)}")
            seen[path] = image
            picture = look_at(path, image)
        assert picture is not None
        if image.size is not None and image.size not in (picture.size, picture.stored):
            have, want = (f"{size[1]} x {size[0]}" for size in (picture.size, image.size))
            report.unused.add("images have another size than their labels", f"{picture.title} is {have}, not {want}")
            continue
        yield picture


def _twice(first: Path, second: Path) -> str:
    if first == second:
        return f"in {first} alone: are these images of one name, of two tasks or folders? Export them one by one"
    return f"in {first} and {second}: leave one, or name one file as the source"


def _usable(image: LabeledImage, config: DataImportConfig, report: ImportReport) -> Iterator[Region]:
    for region in image.regions:
        if not region.label.strip():
            reason = "labels have no class"
        elif region.box and config.boxes == "leave-out":
            reason = "labels are boxes, no outlines (--boxes fill takes all of a box)"
        elif config.classes and region.label not in config.classes and not _is_special(region.label):
            reason = "labels are of classes that --classes does not name"
        else:
            yield region
            continue
        report.unused.add(reason, f"{region.label} in {image.reference}")


def _is_special(label: str) -> bool:
    return _is_ignored(label) or label.lower() in BACKGROUND_NAMES


def _is_ignored(label: str) -> bool:
    return label.lower() in IGNORED_NAMES


def class_table(
    found: Annotations, pictures: list[Picture], config: DataImportConfig, report: ImportReport
) -> tuple[ClassTable, dict[str, int]]:
    """Return the classes of a data set, and the class id of every label.

    The background, if there is one, is first. Then come the classes in the order of --classes, or else of the source;
    those without any label are left out.

    Raises:
        ValueError: There are no classes, more than 255, or --classes names one twice.
    """
    used = {region.label for picture in pictures for region in picture.labels.regions}
    grounds = [label for label in [*found.classes, *sorted(used)] if label.lower() in BACKGROUND_NAMES]
    background = config.unlabeled == "background" or bool(set(grounds) & used)
    listed = list(dict.fromkeys([*found.classes, *sorted(used - set(found.classes))]))
    things = [name for name in (config.classes or [name for name in listed if name in used]) if not _is_special(name)]
    lost = [name for name in listed if name not in used | set(grounds) and not _is_ignored(name)]
    if lost and not config.classes:
        report.notes.append(f"classes without any label are left out: {', '.join(lost)}")
    ordered = [*([grounds[0].strip("_") if grounds else BACKGROUND] if background else []), *things]
    if not ordered:
        raise ValueError(f"{report.source}: there is no label, and so no class; --classes names the classes")
    alike: dict[str, list[str]] = {}
    for name in things:
        seen = (letter for letter in name if not letter.isspace() and unicodedata.category(letter) != "Cf")
        alike.setdefault(folded("".join(seen)), []).append(name)
    for several in alike.values():
        if several[1:]:
            shown = " and ".join(map(repr, several))
            report.notes.append(
                f"{shown} differ in capitals, blanks or the form of Unicode alone, and are classes of their own"
            )
    if unseen := [name for name in config.classes or [] if name not in used | set(BACKGROUND_NAMES)]:
        report.notes.append(f"of --classes, {', '.join(unseen)} have no labels")
    if strange := [name for name in ordered if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name)]:
        raise ValueError(f"{report.source}: the name of the class {strange[0]!r} is no text")
    palette = tuple(found.colors.get(name, color) for name, color in zip(ordered, voc_palette(len(ordered))))
    try:
        table = ClassTable(tuple(ordered), tuple(range(len(ordered))), (IGNORE_INDEX,), palette)
    except ValueError as error:
        raise ValueError(f"{report.source}: {error}") from error
    ids = {name: index for index, name in enumerate(ordered)} | {label: 0 for label in grounds if background}
    return table, ids | {label: IGNORE_INDEX for label in used if _is_ignored(label)}


def _write(
    picture: Picture,
    stem: str,
    folder: Path,
    classes: ClassTable,
    ids: dict[str, int],
    found: Annotations,
    config: DataImportConfig,
    report: ImportReport,
) -> None:
    """Draw the mask of one image, and put both where they belong."""
    image = picture.labels
    unlabeled = 0 if config.unlabeled == "background" else IGNORE_INDEX
    # Tools that do not turn images as their orientation says drew on the pixels as they are stored.
    unturned = image.size is not None and image.size != picture.size
    size: Size = picture.stored if unturned else picture.size
    try:
        drawn = draw_labels(image.regions, ids, size, unlabeled=unlabeled, smaller_in_front=found.smaller_in_front)
    except ValueError as error:
        raise ValueError(f"{image.document}: image {image.reference}: {error}") from error
    mask = turned(drawn.ids, picture.orientation) if unturned else drawn.ids
    path = folder / "masks" / picture.split / f"{stem}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    index_image(mask, classes).save(path)
    _place(picture, folder / "images" / picture.split / f"{stem}{picture.suffix}", config.copy)
    _tell(report, picture, drawn, classes)


def _tell(report: ImportReport, picture: Picture, drawn: DrawnLabels, classes: ClassTable) -> None:
    report.add_image(picture.split, drawn.used)
    for label in drawn.empty:
        report.unused.add("labels cover no pixel", f"{label} in {picture.title}")

    def name(index: int) -> str:
        return classes.names[index] if index < len(classes) else "ignored"

    for (winner, loser), pixels in drawn.overlaps.items():
        report.add_overlap(name(winner), name(loser), pixels)


def _place(picture: Picture, path: Path, copy: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if picture.content is not None:
        path.write_bytes(picture.content)
        return
    assert picture.path is not None
    try:
        if copy:
            raise OSError
        path.symlink_to(picture.path.resolve())
    except OSError:  # where there are no links, on some systems
        shutil.copyfile(picture.path, path)


def _description(classes: ClassTable, report: ImportReport) -> str:
    entries = "".join(f"  {json.dumps(name, ensure_ascii=False)}: {i}\n" for i, name in enumerate(classes.names))
    colors = "".join(f"  - {list(color)}\n" for color in classes.palette)
    return f"# imported from {report.title}\nclasses:\n{entries}ignore: {IGNORE_INDEX}\ncolors:\n{colors}"


def _check_free(out: Path, overwrite: bool) -> None:
    check_room(out.absolute().parent)
    if not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / IMPORT_FILE).is_file():
        raise FileExistsError(f"{out} exists, and is not of `rmiseg data import`; name another --out")
    if not overwrite:
        raise FileExistsError(f"{out} exists; --overwrite replaces it, or name another --out")


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out`, which takes its place at the end."""
    out = out.resolve()
    writable_folder(out.parent)
    remove_leftovers(out.parent, [out.name])
    temporary, old = (out.with_name(f".{out.name}{mark}.{os.getpid()}.tmp") for mark in ("", ".old"))
    temporary.mkdir()
    try:
        yield temporary
        if out.exists():
            out.rename(old)
        temporary.rename(out)
    finally:
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)
