"""Files of labels and of images beside PNG and JPEG, for `readers.py` to mutate, and what reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import tifffile
import yaml
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from rmiseg.config import DataImportConfig
from rmiseg.data import ClassTable, read_mask
from rmiseg.data.description import read_description
from rmiseg.data.labels import import_labels
from rmiseg.data.opening import image_header, nodata_of
from rmiseg.data.reading import deep_values, read_raw_mask
from rmiseg.data.volumes import slices_of
from rmiseg.inference.labels import LabelFiles
from rmiseg.inference.sources import Source

Reader = tuple[list[Path], Callable[[], Any], bool]
SIZE = (24, 32)
CLASSES = ClassTable(("background", "car"), (0, 1), (255,), ((0, 0, 0), (0, 0, 142)))
NAMES = ("annotations.json", "annotations.xml", "tasks.json", "a.json")
CORNERS = [[2, 3], [20, 4], [18, 19]]


def data_readers(folder: Path) -> dict[str, Reader]:
    """The readers by their names, with files that are as they should be."""
    return {**label_readers(folder), **image_readers(folder)}


def label_readers(folder: Path) -> dict[str, Reader]:
    photo = folder / "photos" / "a.png"
    photo.parent.mkdir()
    Image.new("RGB", SIZE[::-1]).save(photo)
    ids = np.zeros(SIZE, np.uint8)
    ids[4:18, 6:25] = 1
    sources: dict[str, Path] = {}
    for name in ("coco", "cvat", "label-studio", "labelme"):
        labels = LabelFiles(name, [Source(photo, Path("a"))], CLASSES, 1.0)
        labels.write(folder / "written", Path("a"), ids)
        labels.finish(folder / "written")
        (sources[name],) = (path for path in (folder / "written" / name).iterdir() if path.name in NAMES)
    tasks = json.loads(sources["label-studio"].read_text())
    sources["label-studio"].write_text(json.dumps([{**each, "annotations": each.pop("predictions")} for each in tasks]))
    sources["supervisely"], sources["via"] = folder / "supervisely" / "ann" / "a.png.json", folder / "via" / "via.json"
    points = {"exterior": CORNERS, "interior": []}
    objects = [{"classTitle": "car", "geometryType": "polygon", "points": points}]
    written = {"size": {"height": SIZE[0], "width": SIZE[1]}, "objects": objects}
    shape = {"name": "polygon", "all_points_x": [x for x, _ in CORNERS], "all_points_y": [y for _, y in CORNERS]}
    regions = [{"shape_attributes": shape, "region_attributes": {"class": "car"}}]
    for name, content in (("supervisely", written), ("via", {"a": {"filename": "a.png", "regions": regions}})):
        sources[name].parent.mkdir(parents=True)
        sources[name].write_text(json.dumps(content))
    sources["yolo"] = folder / "yolo" / "labels" / "a.txt"
    sources["yolo"].parent.mkdir(parents=True)
    sources["yolo"].write_text("0 0.1 0.1 0.8 0.1 0.5 0.9\n")
    (folder / "yolo" / "data.yaml").write_text(yaml.safe_dump({"names": ["car"], "nc": 1}))
    found: dict[str, Reader] = {}
    for name, path in sources.items():
        root = folder / "yolo" if name == "yolo" else path.parent.parent if name == "supervisely" else path.parent
        Image.new("RGB", SIZE[::-1]).save(path.parent / "a.png")
        files = [path, root / "data.yaml"] if name == "yolo" else [path]
        config = DataImportConfig(
            source=str(root), out=str(folder / "out" / name), images=str(photo.parent), format=name, overwrite=True
        )
        found[f"labels: {name}"] = (files, lambda config=config: imported(config), False)
    return found


def imported(config: DataImportConfig) -> int:
    import_labels(config)
    root = Path(config.out)
    classes = read_description(root).classes
    return sum(read_mask(path, classes).size for path in sorted((root / "masks").rglob("*.png")))


def image_readers(folder: Path) -> dict[str, Reader]:
    values = np.random.default_rng(0).integers(0, 3000, (*SIZE, 4)).astype(np.uint16)
    place = [
        (33550, "d", 3, (10.0, 10.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 500000.0, 4600000.0, 0.0), True),
        (42113, "s", 0, "-9999", True),
    ]
    tiff, dicom, volume, packed = (folder / name for name in ("i.tif", "i.dcm", "v.nii", "w.nii.gz"))
    tifffile.imwrite(
        tiff,
        values,
        tile=(16, 16),
        compression="zlib",
        photometric="minisblack",
        planarconfig="contig",
        extratags=place,
    )
    write_dicom(dicom, values[..., 0])
    for path in (volume, packed):
        nibabel.save(nibabel.Nifti1Image(values[..., :3].astype(np.int16), np.eye(4)), path)
    masks = [folder / f"m{suffix}" for suffix in (".gif", ".webp", ".tif", ".pgm", ".npy")]
    for path in masks:
        mask = Image.fromarray((values[..., 0] > 1500).astype(np.uint8) * 255)
        if path.suffix == ".npy":
            np.save(path, np.asarray(mask))
            continue
        mask.convert("RGB").save(path, lossless=True) if path.suffix == ".webp" else mask.save(path)
    return {
        "GeoTIFF": ([tiff], lambda: (image_header(tiff), nodata_of(tiff), deep_values(tiff, 4)), False),
        "DICOM": ([dicom], lambda: (image_header(dicom), deep_values(dicom)), False),
        "NIfTI": ([volume], lambda: [deep_values(path) for path in slices_of(volume)[:8]], False),
        "NIfTI, packed": ([packed], lambda: [deep_values(path) for path in slices_of(packed)[:8]], False),
        **{f"mask {path.suffix}": ([path], lambda path=path: read_raw_mask(path, rgb=False), False) for path in masks},
    }


def write_dicom(path: Path, values: np.ndarray) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = "1", "-1024"
    dataset.PixelData = values.tobytes()
    dataset.save_as(path, enforce_file_format=True)
