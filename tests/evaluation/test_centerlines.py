import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from rmiseg.evaluation.centerlines import CenterlineDice, skeleton
from rmiseg.evaluation.metrics import load_metrics


def blobs(seed, size=24):
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.standard_normal((size, size + 5)), 2) > 0.02


def thinned(mask):
    """The definition of Guo and Hall 1989, pixel by pixel."""
    image, changed = np.pad(mask, 1).astype(int), True
    while changed:
        changed = False
        for half in (0, 1):
            gone = []
            for y, x in zip(*np.nonzero(image)):
                p = [image[y - 1, x], image[y - 1, x + 1], image[y, x + 1], image[y + 1, x + 1]]
                p += [image[y + 1, x], image[y + 1, x - 1], image[y, x - 1], image[y - 1, x - 1]]
                turns = sum(not p[k] and (p[k + 1] or p[(k + 2) % 8]) for k in (0, 2, 4, 6))
                size = min(sum(p[k - 1] or p[k] for k in (0, 2, 4, 6)), sum(p[k] or p[k + 1] for k in (0, 2, 4, 6)))
                a = 4 * half
                kept = (p[a] or p[a + 1] or not p[(a + 3) % 8]) and p[(a + 2) % 8]
                if turns == 1 and 2 <= size <= 3 and not kept:
                    gone.append((y, x))
            for y, x in gone:
                image[y, x] = 0
            changed |= bool(gone)
    return image[1:-1, 1:-1].astype(bool)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 9999))
def test_skeleton_against_loops(seed):
    mask = blobs(seed)
    assert np.array_equal(skeleton(mask), thinned(mask))


def test_skeleton_against_scikit_image():
    """Not its algorithm, but nearly its lines."""
    morphology = pytest.importorskip("skimage.morphology")
    for seed in range(10):
        ours, theirs = skeleton(blobs(seed, 96)), morphology.skeletonize(blobs(seed, 96))
        assert not (ours & ~ndimage.binary_dilation(theirs, np.ones((3, 3)), 2)).any()
        assert not (theirs & ~ndimage.binary_dilation(ours, np.ones((3, 3)), 2)).any()
        assert abs(ours.sum() / theirs.sum() - 1) < 0.1


def test_skeleton_keeps_what_is_connected():
    eight = np.ones((3, 3))
    for seed in range(20):
        mask = blobs(seed, 60)
        line = skeleton(mask)
        assert not (line & ~mask).any()
        assert ndimage.label(line, eight)[1] == ndimage.label(mask, eight)[1]
    assert not skeleton(np.zeros((4, 6), bool)).any()


def cldice(prediction, target, num_classes=2):
    metric = CenterlineDice()
    return {name: value.item() for name, value in metric.scores(metric.count(prediction, target, num_classes)).items()}


def test_lines_and_not_widths_count():
    truth = np.zeros((40, 60), np.uint8)
    truth[10:13, 4:56] = 1
    wider = np.zeros_like(truth)
    wider[9:14, 3:57] = 1
    assert cldice(truth, truth) == {"cldice": 1, "topology_precision": 1, "topology_sensitivity": 1}
    scores = cldice(wider, truth)
    assert scores["topology_sensitivity"] == 1
    assert scores["cldice"] > 0.97
    cut = truth.copy()
    cut[:, 30:] = 0  # half of the line is not found
    scores = cldice(cut, truth)
    assert scores["topology_precision"] == 1
    assert scores["topology_sensitivity"] == pytest.approx(0.5, abs=0.02)
    assert scores["cldice"] == pytest.approx(2 * 0.5 / 1.5, abs=0.02)


def test_classes_that_are_not_there():
    truth, nothing = np.zeros((8, 9), np.uint8), np.zeros((8, 9), np.uint8)
    truth[4, 1:8] = 1
    assert np.isnan(cldice(nothing, nothing)["cldice"])
    assert cldice(nothing, truth)["cldice"] == 0
    assert cldice(truth, nothing)["cldice"] == 0
    assert cldice(truth, truth, 3)["cldice"] == 1  # class 2 is in neither


def test_ignored_pixels_do_not_count():
    truth, prediction = np.zeros((9, 20), np.uint8), np.zeros((9, 20), np.uint8)
    truth[4, 2:10] = prediction[4, 2:18] = 1
    assert cldice(prediction, truth)["topology_precision"] == pytest.approx(0.5)
    truth[:, 10:] = 255
    assert cldice(prediction, truth)["cldice"] == 1


def test_registered_and_added_up_over_images():
    metric = load_metrics(["cldice"], 2)["cldice"]
    pairs = [(blobs(seed).astype(np.uint8), blobs(seed + 1).astype(np.uint8)) for seed in range(3)]
    counts = np.stack([metric.count(*pair, 2) for pair in pairs])
    assert counts.shape == (3, 4, 1)
    assert metric.scores(counts)["cldice"].shape == (3,)
    whole = metric.scores(counts.sum(axis=0))
    precision, sensitivity = whole["topology_precision"], whole["topology_sensitivity"]
    assert whole["cldice"] == pytest.approx(2 * precision * sensitivity / (precision + sensitivity))
