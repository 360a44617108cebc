"""QuPath's objects as GeoJSON, of its versions, and what is not read of them."""

from __future__ import annotations

import numpy as np
import pytest

from rmiseg.data.labels.shapes import exact_polygons
from support.labels import SIZE, imported, write_json, write_photo

pytest.importorskip("pycocotools")
OUTER, INNER = [[2, 3], [29, 3], [29, 21], [2, 21], [2, 3]], [[8, 8], [20, 8], [20, 16], [8, 16], [8, 8]]
SMALL = [[22, 5], [27, 5], [27, 10], [22, 5]]


def feature(kind, coordinates, classification=None, **plane):
    properties = {"objectType": "annotation", **({"classification": classification} if classification else {})}
    geometry = {"type": kind, "coordinates": coordinates, **plane}
    return {"type": "Feature", "id": "f7", "geometry": geometry, "properties": properties}


def pixels(corners):
    return exact_polygons([np.array(corners, float)], SIZE)


def test_objects(tmp_path):
    """Holes are no part of an object, several parts are, and the smaller object lies in front."""
    root = tmp_path / "x"
    write_photo(root / "images" / "a.png")
    write_photo(root / "images" / "b.png")
    features = [
        feature("MultiPolygon", [[SMALL], [INNER]], {"name": "Stroma", "color": [150, 200, 150]}),
        feature("Polygon", [OUTER, INNER], {"names": ["Tumor", "Positive"], "color": [200, 0, 0]}),
    ]
    write_json(root / "a.geojson", {"type": "FeatureCollection", "features": features})
    write_json(root / "b.png.geojson", {"type": "FeatureCollection", "features": []})
    report, masks, classes = imported(root, val=0, empty="background")
    assert report.format == "qupath"
    assert classes == ["background", "Stroma", "Tumor: Positive"]
    front = pixels(SMALL) | pixels(INNER)
    assert np.array_equal(masks["train/a"], np.where(front, 1, np.where(pixels(OUTER) & ~pixels(INNER), 2, 0)))
    assert not masks["train/b"].any()
    assert "- [150, 200, 150]" in (tmp_path / "imported" / "dataset.yaml").read_text()


def test_lists_of_older_versions_and_what_has_no_area(tmp_path):
    root = tmp_path / "x"
    write_photo(root / "a.tif")
    tumor = {"name": "Tumor", "colorRGB": -3670016}
    features = [
        feature("Polygon", [OUTER], tumor),
        feature("Polygon", [INNER], {"name": "Ignore*"}),
        feature("Polygon", [SMALL]),
        feature("Polygon", [SMALL], tumor, plane={"c": -1, "z": 2, "t": 0}),
        feature("Polygon", [SMALL[:2]], tumor),
        feature("LineString", SMALL, tumor),
    ]
    write_json(root / "a.json", features)
    report, masks, classes = imported(root, val=0)
    assert classes == ["background", "Tumor"]
    assert np.array_equal(masks["train/a"], np.where(pixels(INNER), 255, pixels(OUTER)))
    assert [line.partition(":")[0] for line in report.unused.lines()] == [
        "1 labels have no class",
        "1 labels are not on the first plane of their image",
        "1 polygons of fewer than three corners",
        "1 labels are of the kind LineString, whose area is not read",
    ]
    assert "- [200, 0, 0]" in (tmp_path / "imported" / "dataset.yaml").read_text()


@pytest.mark.parametrize(
    "content", [[], {"type": "FeatureCollection", "crs": {}, "features": []}, {"type": "Feature", "properties": {}}]
)
def test_other_geojson_is_not_of_qupath(tmp_path, content):
    write_json(tmp_path / "a.geojson", content)
    with pytest.raises(ValueError, match=r"GeoJSON of a map.*gdal_rasterize" if content else "no format"):
        imported(tmp_path)


def test_damaged_objects(tmp_path):
    write_photo(tmp_path / "x" / "a.png")
    write_json(tmp_path / "x" / "a.geojson", [feature("Polygon", [[[1, None]]], {"name": "Tumor"})])
    with pytest.raises(ValueError, match=r"a\.geojson: object 1 in a\.geojson: "):
        imported(tmp_path / "x")
    broken = feature("Polygon", [OUTER], {"name": "Tumor"})
    del broken["geometry"]["coordinates"]
    write_json(tmp_path / "x" / "a.geojson", [broken])
    with pytest.raises(ValueError, match=r"a\.geojson does not hold QuPath's objects: 'coordinates' is missing"):
        imported(tmp_path / "x")


def test_the_image_beside_its_objects_comes_first(tmp_path):
    for folder in ("x", "y"):
        write_photo(tmp_path / folder / "a.png")
    write_json(tmp_path / "x" / "a.geojson", [feature("Polygon", [OUTER], {"name": "Tumor"})])
    imported(tmp_path / "x", images=str(tmp_path / "y"))
    assert (tmp_path / "imported" / "images" / "train" / "a.png").resolve() == tmp_path / "x" / "a.png"
    write_photo(tmp_path / "x" / "a.jpg")
    with pytest.raises(ValueError, match="of which there are several"):
        imported(tmp_path / "x")
