"""Files of labels and of images beside PNG and JPEG, for `readers.py` to mutate, and what reads them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import scipy.io
import tifffile
import yaml
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from roifile import ImagejRoi

from rmiseg.config import DataImportConfig
from rmiseg.data import ClassTable, read_mask
from rmiseg.data.bands import Bands
from rmiseg.data.description import read_description
from rmiseg.data.image_files.masks import read_raw_mask
from rmiseg.data.image_files.opening import image_header, nodata_of
from rmiseg.data.image_files.reading import deep_values
from rmiseg.data.image_files.volumes import slices_of
from rmiseg.data.labels import import_labels
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
    sources |= other_tools(folder)
    sources["yolo"] = folder / "yolo" / "labels" / "a.txt"
    sources["yolo"].parent.mkdir(parents=True)
    sources["yolo"].write_text("0 0.1 0.1 0.8 0.1 0.5 0.9\n")
    (folder / "yolo" / "data.yaml").write_text(yaml.safe_dump({"names": ["car"], "nc": 1}))
    found: dict[str, Reader] = {}
    for name, path in sources.items():
        root = folder / "yolo" if name == "yolo" else path.parent.parent if name == "supervisely" else path.parent
        form = name.partition(",")[0]
        Image.new("RGB", SIZE[::-1]).save(path.parent / "a.png")
        files = [path, root / "data.yaml"] if name == "yolo" else [path]
        config = DataImportConfig(
            source=str(root), out=str(folder / "out" / name), images=str(photo.parent), format=form, overwrite=True
        )
        found[f"labels: {name}"] = (files, lambda config=config: imported(config), False)
    return found


def other_tools(folder: Path) -> dict[str, Path]:
    """A file of each of the tools whose formats are read alone."""
    size = {"width": SIZE[1], "height": SIZE[0]}
    corners, flat = [{"x": x, "y": y} for x, y in CORNERS], [number for corner in CORNERS for number in corner]
    layer = {"dense_rle": [0, 400, 1, 368], "mask_annotation_ids_mapping": {"m": 1}}
    labels = [
        {"id": "p", "name": "car", "polygon": {"paths": [corners]}},
        {"id": "m", "name": "road", "mask": {}},
        {"id": "r", "name": "__raster_layer__", "raster_layer": layer},
    ]
    shape = {"type": "polygon", "label_id": 0, "points": flat, "z_order": 0}
    run = {"type": "mask", "label_id": 0, "rle": {"counts": [400, 368], "size": list(SIZE)}}
    item = {"id": "a", "annotations": [shape, run], "image": {"path": "a.png", "size": list(SIZE)}}
    image = {"image_name": "a.png", **size, "labels": [{"class_name": "car", "polygon": CORNERS, "z_index": 1}]}
    segment = {"image_id": 1, "file_name": "s.png", "segments_info": [{"id": 1, "category_id": 2}]}
    contents: dict[str, Any] = {
        "darwin": {"item": {"name": "a.png", "slots": [size]}, "annotations": labels},
        "datumaro": {"categories": {"label": {"labels": [{"name": "car"}]}}, "items": [item]},
        "qupath": {
            "type": "FeatureCollection",
            "features": [
                {
                    "type": "Feature",
                    "geometry": {"type": "Polygon", "coordinates": [[*CORNERS, CORNERS[0]]]},
                    "properties": {"objectType": "annotation", "classification": {"name": "car", "color": [1, 2, 3]}},
                }
            ],
        },
        "vott": {
            "asset": {"name": "a.png", "size": size},
            "regions": [{"type": "POLYGON", "tags": ["car"], "points": corners}],
        },
        "hasty": {"label_classes": [{"class_name": "car", "color": "#ff0000"}], "images": [image]},
        "street-polygons": {
            "imgHeight": SIZE[0],
            "imgWidth": SIZE[1],
            "objects": [{"label": "car", "polygon": CORNERS}],
        },
        "coco-panoptic": {
            "images": [{"id": 1, "file_name": "a.png"}],
            "annotations": [segment],
            "categories": [{"id": 2, "name": "car"}],
        },
    }
    found = {name: folder / name / "a.json" for name in contents}
    for name, content in contents.items():
        found[name].parent.mkdir()
        found[name].write_text(json.dumps(content))
    Image.new("RGB", SIZE[::-1], (1, 0, 0)).save(found["coco-panoptic"].parent / "s.png")
    found["roboflow-masks"] = folder / "roboflow-masks" / "_classes.csv"
    found["roboflow-masks"].parent.mkdir()
    found["roboflow-masks"].write_text("Pixel Value, Class\n0, background\n1, car\n")
    Image.new("L", SIZE[::-1], 1).save(found["roboflow-masks"].parent / "a_mask.png")
    return found | tables(folder) | regions(folder)


def regions(folder: Path) -> dict[str, Path]:
    found = {"imagej": folder / "imagej" / "a.roi", "imagej, archive": folder / "imagej, archive" / "a.zip"}
    region = ImagejRoi.frompoints(np.array(CORNERS), name="car").tobytes()
    for path in found.values():
        path.parent.mkdir()
    found["imagej"].write_bytes(region)
    with zipfile.ZipFile(found["imagej, archive"], "w") as archive:
        archive.writestr("0001-0002.roi", region)
    return found


def tables(folder: Path) -> dict[str, Path]:
    found = {name: folder / name / "a.csv" for name in ("kaggle-columns", "via, CSV")}
    for path in found.values():
        path.parent.mkdir()
    found["kaggle-columns"].write_text(
        "ImageId_ClassId,EncodedPixels\na.png_car,9 4 30 2\na.png_tree,100 20\nb.png_car,\n"
    )
    shape = {"name": "polygon", "all_points_x": [x for x, _ in CORNERS], "all_points_y": [y for _, y in CORNERS]}
    cell = json.dumps(shape).replace('"', '""')
    found["via, CSV"].write_text(
        f'filename,region_shape_attributes,region_attributes\na.png,"{cell}","{{""class"": ""car""}}"\n'
    )
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
    masks = [folder / f"m{suffix}" for suffix in (".gif", ".webp", ".tif", ".pgm", ".npy", ".mat")]
    for path in masks:
        if path.suffix == ".mat":
            scipy.io.savemat(path, {"GTcls": {"Segmentation": values[..., 0] % 21}})
            continue
        mask = Image.fromarray((values[..., 0] > 1500).astype(np.uint8) * 255)
        if path.suffix == ".npy":
            np.save(path, np.asarray(mask))
            continue
        mask.convert("RGB").save(path, lossless=True) if path.suffix == ".webp" else mask.save(path)
    return {
        "GeoTIFF": ([tiff], lambda: (image_header(tiff), nodata_of(tiff), deep_values(tiff, Bands(4))), False),
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
