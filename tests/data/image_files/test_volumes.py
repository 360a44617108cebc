"""Volumes in NIfTI files as stacks of slices."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from rmiseg.data import check_dataset, open_training_data
from rmiseg.data.fingerprint import fingerprint
from rmiseg.data.image_files.masks import read_raw_mask
from rmiseg.data.image_files.opening import has_deep_values, image_header
from rmiseg.data.image_files.reading import deep_values, read_image
from rmiseg.data.image_files.volumes import misplaced, slices_of
from rmiseg.data.sets.finding import scan_splits
from rmiseg.inference.sources import find_sources
from rmiseg.inference.volume_files import VolumeFiles

nibabel = pytest.importorskip("nibabel")
SHAPE = (6, 8, 4)
"""Right to left, back to front, feet to head, as the tests write a volume in its usual orientation."""


def write_volume(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return path


def write_data(root: Path, count: int = 5, suffix: str = ".nii.gz") -> Path:
    rng = np.random.default_rng(0)
    for index in range(count):
        mask = np.zeros(SHAPE, np.uint8)
        mask[1:4, 2:6] = 1
        values = rng.integers(-1000, 0, SHAPE) + 900 * mask.astype(int)
        write_volume(root / "imagesTr" / f"case_{index}_0000{suffix}", values.astype(np.int16))
        write_volume(root / "labelsTr" / f"case_{index}{suffix}", mask)
    (root / "dataset.yaml").write_text("classes: [background, organ]")
    return root


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LIP", "SAR", "ASL", "PIR"])
def test_slices_are_axial_whatever_the_order_of_the_axes(codes, tmp_path):
    values = np.arange(6 * 8 * 4, dtype=np.int16).reshape(SHAPE)
    image = nibabel.Nifti1Image(values, np.diag([2.0, 3.0, 4.0, 1.0]))
    wanted = nibabel.orientations.axcodes2ornt(codes)
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), wanted)
    nibabel.save(image.as_reoriented(turn), tmp_path / "v.nii")
    slices = slices_of(tmp_path / "v.nii")
    assert [path.name for path in slices] == ["0000", "0001", "0002", "0003"]
    assert image_header(slices[0]) == ((8, 6), 1, False)
    for number, path in enumerate(slices):
        # Rows from the front to the back, columns from the right to the left: both against the axes.
        np.testing.assert_array_equal(deep_values(path), values[::-1, ::-1, number].T)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LIP", "SAR", "ASL", "PIR"])
def test_predictions_lie_where_their_volumes_lie(codes, tmp_path):
    ids = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)
    image = nibabel.Nifti1Image(ids.astype(np.int16), np.diag([2.0, 3.0, 4.0, 1.0]))
    image.header["cal_max"], image.header["xyzt_units"] = 300, 2
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(codes)
    )
    volume = tmp_path / "in" / "p" / "v.nii.gz"
    volume.parent.mkdir(parents=True)
    nibabel.save(image.as_reoriented(turn), volume)
    sources = find_sources([str(tmp_path / "in")]).sources
    files = VolumeFiles(sources)
    for source in sources[:-1]:
        files.write(tmp_path, source.name, deep_values(source.file).astype(np.uint8))
    assert files.finish(tmp_path) == []  # a slice is missing
    files.write(tmp_path, sources[-1].name, deep_values(sources[-1].file).astype(np.uint8))
    (path,) = files.finish(tmp_path)
    assert path == tmp_path / "nifti" / "p" / "v.nii.gz"
    assert misplaced(volume, path) == ""
    found = nibabel.load(path)
    assert found.get_data_dtype() == np.uint8
    assert (found.header["cal_max"], found.header["xyzt_units"]) == (0, 2)
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(nibabel.load(volume).dataobj))


def test_volumes_of_8_bits_have_no_deep_values(tmp_path):
    for kind, deep in ((np.uint8, False), (np.int16, True)):
        path = write_volume(tmp_path / f"{deep}.nii", np.zeros(SHAPE, kind))
        assert has_deep_values(slices_of(path)[0]) == deep


def test_volumes_are_made_of_slices_alone(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"--write nifti is for volumes in NIfTI files, and .*a.png is none"):
        VolumeFiles(find_sources([str(tmp_path / "a.png")]).sources)


def test_values_are_those_that_the_file_says_it_means(tmp_path):
    values = np.linspace(-1024, 3000, 192).reshape(SHAPE)
    image = nibabel.Nifti1Image(values, np.eye(4))
    image.set_data_dtype(np.int16)  # numbers, slope and intercept
    nibabel.save(image, tmp_path / "v.nii")
    np.testing.assert_allclose(deep_values(slices_of(tmp_path / "v.nii")[1]), values[::-1, ::-1, 1].T, atol=0.1)
    write_volume(tmp_path / "bands.nii", np.zeros((*SHAPE, 2), np.uint8))
    assert image_header(tmp_path / "bands.nii" / "0000").bands == 2


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_data_set_of_volumes(suffix, tmp_path):
    root = write_data(tmp_path / "data", suffix=suffix)
    report = check_dataset("folder", root, workers=0)
    assert (report.problem_count, [split.images for split in report.splits]) == (0, [16, 4])
    train, val = open_training_data("folder", str(root), ("train", "val"))
    assert len({name.split("/")[0] for name in val.names}) == 1  # no volume is on both sides
    pixels, ids = train.read(0)
    assert pixels.shape == (8, 6, 3)
    assert pixels[ids == 1].mean() > pixels[ids == 0].mean() + 50
    before = fingerprint(train)
    path = train.samples[0].image.parent
    write_volume(path, np.zeros(SHAPE, np.int16))
    assert fingerprint(train)["content"] != before["content"]


def test_volumes_to_predict(tmp_path):
    write_data(tmp_path, 1)
    sources = find_sources([str(tmp_path / "imagesTr")]).sources
    assert [str(source.name) for source in sources] == [f"case_0_0000/000{number}" for number in range(4)]


def problems(root: Path) -> str:
    return "\n".join(problem for split in scan_splits("folder", root) for problem in split.problems)


def test_masks_of_another_place_are_refused(tmp_path):
    root = write_data(tmp_path)
    path = root / "labelsTr" / "case_0.nii.gz"
    values = np.asarray(nibabel.load(path).dataobj)
    write_volume(path, values, np.diag([-1.0, 1, 1, 1]))
    assert f"case_0_0000.nii.gz and its mask {path} lie in other places, or are turned otherwise" in problems(root)
    write_volume(path, values[:-1])
    assert f"has 6 x 8 x 4 voxels, but its mask {path} has 5 x 8 x 4" in problems(root)
    path.rename(path.with_name("case_0.png"))
    assert "is a volume, and its mask" in problems(root)


@pytest.mark.parametrize("damage", [b"", b"no volume", b"\x1f\x8bno gzip"])
def test_damaged_volumes(damage, tmp_path):
    path = tmp_path / "v.nii.gz"
    path.write_bytes(damage)
    with pytest.raises(ValueError, match="cannot read volume"):
        slices_of(path)


def test_what_is_no_stack_of_slices(tmp_path):
    write_volume(tmp_path / "v.nii", np.zeros((3, 4), np.uint8))
    with pytest.raises(ValueError, match="a volume has three axes"):
        slices_of(tmp_path / "v.nii")
    write_volume(tmp_path / "w.nii", np.zeros(SHAPE, np.uint8))
    for name in ("0004", "x"):
        with pytest.raises(ValueError, match="it has 4 slices, and none of the number"):
            read_image(tmp_path / "w.nii" / name)
    (tmp_path / "cut.nii.gz").write_bytes(gzip.compress((tmp_path / "w.nii").read_bytes())[:-30])
    with pytest.raises(ValueError, match="cannot read"):
        slices_of(tmp_path / "cut.nii.gz")
    (tmp_path / "short.nii").write_bytes((tmp_path / "w.nii").read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot read mask"):
        read_raw_mask(tmp_path / "short.nii" / "0003", rgb=False)
