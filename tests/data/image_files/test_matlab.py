"""Masks of the Semantic Boundaries Dataset, in files of MATLAB."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from miniatures import write_sbd
from rmiseg.data.image_files.matlab import read_categories

VALUES = np.random.default_rng(0).integers(0, 21, (17, 30), dtype=np.uint8)


@pytest.mark.parametrize("packed", [True, False])
def test_categories_are_those_that_scipy_reads(tmp_path, packed):
    path = write_sbd(tmp_path / "m.mat", VALUES, packed)
    expected = scipy.io.loadmat(path)["GTcls"]["Segmentation"][0, 0]
    np.testing.assert_array_equal(read_categories(path), expected)
    np.testing.assert_array_equal(expected, VALUES)


@pytest.mark.parametrize("dtype", ["int32", "float64"])
def test_other_types_of_numbers_beside_other_variables(tmp_path, dtype):
    path = tmp_path / "m.mat"
    scipy.io.savemat(path, {"name": "a", "GTcls": {"Segmentation": VALUES[:2, :2].astype(dtype)}, "x": np.eye(3)})
    np.testing.assert_array_equal(read_categories(path), VALUES[:2, :2])


@pytest.mark.parametrize(
    "content", [{}, {"x": 1.0}, {"GTcls": 1.0}, {"GTcls": {"a": 1}}, {"GTcls": {"Segmentation": "a"}}]
)
def test_files_without_categories_are_refused(tmp_path, content):
    scipy.io.savemat(tmp_path / "m.mat", content)
    with pytest.raises(ValueError, match="Segmentation"):
        read_categories(tmp_path / "m.mat")


@pytest.mark.parametrize("packed", [True, False])
def test_damaged_files_are_read_or_refused(tmp_path: Path, packed):
    """SciPy's reader ended the process at some of those that are not packed."""
    path = write_sbd(tmp_path / "m.mat", VALUES, packed)
    whole, chance = path.read_bytes(), random.Random(0)
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 2, 20))):
            at = chance.randrange(len(data))
            data[at : at + chance.randrange(9)] = chance.randbytes(chance.randrange(9))
        path.write_bytes(data)
        with contextlib.suppress(ValueError):
            assert read_categories(path).ndim == 2
