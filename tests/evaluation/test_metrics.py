import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st

from rmiseg.evaluation.boundaries import boundary_width, inner_boundary, near_boundary, pixels
from rmiseg.evaluation.metrics import MEASURES, TRIMAP_WIDTHS, Scores, confusion_matrix, count_image, iou


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 4, (2, 20, 30), generator=generator, dtype=torch.uint8)
    prediction = torch.where(torch.rand(target.shape, generator=generator) < 0.6, target.long(), 1)
    target[torch.rand(target.shape, generator=generator) < 0.1] = 255
    return prediction, target


def test_confusion_counts_every_valid_pixel_once(maps):
    prediction, target = maps
    matrix = confusion_matrix(prediction, target, 4)
    for true in range(4):
        for predicted in range(4):
            assert matrix[true, predicted] == ((target == true) & (prediction == predicted)).sum()
    assert matrix.sum() == (target != 255).sum()


def test_scores_against_torchmetrics(maps):
    from torchmetrics.classification import MulticlassJaccardIndex  # which takes seconds

    prediction, target = maps
    scores = Scores.from_confusion(confusion_matrix(prediction, target, 4))
    witness = MulticlassJaccardIndex(4, average=None, ignore_index=255)(prediction, target.long())
    assert scores.iou == pytest.approx(witness.tolist())
    assert scores.mean_iou == pytest.approx(witness.mean().item())
    valid = target != 255
    assert scores.pixel_accuracy == pytest.approx((prediction[valid] == target[valid]).float().mean().item())
    shares = torch.bincount(target[valid].long(), minlength=4) / valid.sum()
    assert scores.frequency_weighted_iou == pytest.approx((shares * witness).sum().item())


def test_class_in_neither_truth_nor_prediction_has_no_score():
    target = torch.tensor([[0, 0, 1, 1]])
    scores = Scores.from_confusion(confusion_matrix(torch.tensor([[0, 0, 1, 3]]), target, 5))
    assert math.isnan(scores.iou[2])
    assert math.isnan(scores.iou[4])
    assert scores.iou[3] == 0  # predicted where it is not: a mistake that counts
    assert scores.mean_iou == pytest.approx((1 + 0.5 + 0) / 3)
    assert scores.mean_accuracy == pytest.approx((1 + 0.5) / 2)
    assert scores.frequency_weighted_iou == pytest.approx(0.75)


def draw_labels(height, width, classes, seed):
    """Blocks of labels, less a few ignored pixels."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, classes, (height // 4 + 1, width // 4 + 1)).astype(np.uint8)
    labels = blocks.repeat(4, axis=0).repeat(4, axis=1)[:height, :width].copy()
    labels[rng.random(labels.shape) < 0.02] = 255
    return labels


def neighborhood(labels, y, x, width):
    return labels[max(y - width, 0) : y + width + 1, max(x - width, 0) : x + width + 1]


labels_and_widths = given(
    height=st.integers(1, 24), width=st.integers(1, 24), reach=st.integers(1, 12), seed=st.integers(0, 9999)
)


@labels_and_widths
def test_near_boundary_against_loops(height, width, reach, seed):
    labels = draw_labels(height, width, 3, seed)
    expected = [
        [bool((neighborhood(labels, y, x, reach) != labels[y, x]).any()) for x in range(width)] for y in range(height)
    ]
    assert pixels(near_boundary(labels, [reach])[reach], width).tolist() == expected


@given(height=st.integers(1, 140), width=st.integers(1, 260), block=st.integers(1, 40), seed=st.integers(0, 9999))
def test_near_boundary_in_several_widths(height, width, block, seed):
    """Beyond the pixels of a word and the rows of a band, against the largest and smallest label of each square."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 3, (height // block + 1, width // block + 1), dtype=np.uint8)
    labels = coarse.repeat(block, 0).repeat(block, 1)[:height, :width]
    widths = rng.integers(1, 80, 4).tolist()
    found = near_boundary(labels, widths)
    for reach in widths:
        extremes = (
            each(labels, 2 * reach + 1, mode="nearest")
            for each in (scipy.ndimage.maximum_filter, scipy.ndimage.minimum_filter)
        )
        assert np.array_equal(pixels(found[reach], width), np.not_equal(*extremes))


@labels_and_widths
def test_inner_boundary_is_what_erosions_take_away(height, width, reach, seed):
    """For each class: its mask less the mask eroded `reach` times by a 3 x 3 square, with nothing around the image."""
    labels = draw_labels(height, width, 3, seed)
    expected = np.zeros(labels.shape, bool)
    for label in np.unique(labels):
        mask = np.pad(labels == label, 1)
        eroded = mask
        for _ in range(reach):
            eroded = scipy.ndimage.binary_erosion(eroded, np.ones((3, 3)))
        expected |= (mask & ~eroded)[1:-1, 1:-1]
    inner = inner_boundary(near_boundary(labels, [reach])[reach], reach, width)
    assert np.array_equal(pixels(inner, width), expected)


@given(height=st.integers(1, 30), width=st.integers(1, 30), seed=st.integers(0, 9999))
def test_counts_of_an_image_against_naive_ones(height, width, seed):
    """Boundary IoU as Cheng et al. define it, mask by mask; trimap by trimap; and the confusion matrix."""
    classes = 4
    target = draw_labels(height, width, classes, seed)
    prediction = draw_labels(height, width, classes, seed + 1)
    prediction[prediction == 255] = 0
    mixed = np.random.default_rng(seed).random(target.shape) < 0.6
    prediction[mixed & (target != 255)] = target[mixed & (target != 255)]
    counts = count_image(prediction, target, classes)
    assert np.array_equal(counts.confusion, confusion_matrix(torch.tensor(prediction), torch.tensor(target), classes))

    valid = target != 255
    reach = boundary_width(target.shape)
    assert reach == max(1, round(0.02 * math.hypot(height, width)))
    for label in range(classes):
        boundaries = []
        for labels in (target, prediction):
            mask = np.pad((labels == label) & valid, 1)
            eroded = scipy.ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=reach)
            boundaries.append((mask & ~eroded)[1:-1, 1:-1])
        hit, true, predicted = counts.counts[MEASURES.index("boundary"), :, label]
        assert hit == (boundaries[0] & boundaries[1]).sum()
        assert true + predicted - hit == (boundaries[0] | boundaries[1]).sum()
        assert (true, predicted) == (boundaries[0].sum(), boundaries[1].sum())

    for reach in TRIMAP_WIDTHS:
        near = np.array(
            [[(neighborhood(target, y, x, reach) != target[y, x]).any() for x in range(width)] for y in range(height)]
        )
        matrix = confusion_matrix(torch.tensor(prediction[near]), torch.tensor(target[near]), classes)
        near_counts = counts.counts[MEASURES.index(f"trimap_{reach}")]
        assert np.allclose(iou(near_counts), Scores.from_confusion(matrix).iou, equal_nan=True)
        assert near_counts[1].sum() == (near & valid).sum()


@pytest.mark.parametrize("classes", [1, 40, 255])
def test_counts_of_many_classes(classes):
    """So many that a pixel's number needs 32 bits; and labels in the prediction that are no classes."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, classes, (30, 70), dtype=np.uint8)
    target[rng.random(target.shape) < 0.2] = 255
    prediction = rng.integers(0, classes, target.shape, dtype=np.uint8)
    prediction[target == 255] = 255
    counts = count_image(prediction, target, classes)
    assert np.array_equal(counts.confusion, confusion_matrix(torch.tensor(prediction), torch.tensor(target), classes))
    assert counts.counts[0, 1].sum() == (target != 255).sum()


def test_boundary_width_of_known_images():
    assert boundary_width((360, 480)) == 12
    assert boundary_width((1024, 2048)) == 46
    assert boundary_width((8, 8)) == 1


def test_perfect_prediction_has_perfect_scores_in_every_measure():
    target = draw_labels(40, 50, 3, 0)
    counts = count_image(np.where(target == 255, 0, target).astype(np.uint8), target, 3)
    assert np.array_equal(iou(counts.counts), np.ones((len(MEASURES), 3)))


def test_image_without_valid_pixels_counts_nothing():
    counts = count_image(np.zeros((5, 6), np.uint8), np.full((5, 6), 255, np.uint8), 3)
    assert counts.counts.sum() == 0
    assert np.isnan(Scores.from_counts(counts.counts[0]).mean_iou)


def test_255_classes():
    target = np.arange(256, dtype=np.uint8).reshape(16, 16)
    counts = count_image(np.minimum(target, 254), target, 255)
    assert np.array_equal(counts.confusion, np.eye(255))


def test_a_mean_over_fewer_classes_says_so():
    counts = np.array([[4, 2, 0], [5, 3, 0], [6, 2, 0]])
    assert Scores.from_counts(counts).scope == " over 2 of 3 classes"
    assert Scores.from_counts(counts[:, :2]).scope == ""
