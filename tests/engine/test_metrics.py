import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from rmiseg.engine.metrics import Scores, confusion_matrix, near_boundary


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


@pytest.mark.parametrize("width", [1, 3])
def test_near_boundary_against_loops(width):
    rng = np.random.default_rng(0)
    target = rng.integers(0, 3, (1, 6, 7)).repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
    target[rng.random(target.shape) < 0.05] = 255
    expected = np.zeros(target.shape, bool)
    for y in range(24):
        for x in range(28):
            window = target[0, max(y - width, 0) : y + width + 1, max(x - width, 0) : x + width + 1]
            own = target[0, y, x]
            expected[0, y, x] = own != 255 and bool(((window != own) & (window != 255)).any())
    found = near_boundary(torch.tensor(target), 3, width).numpy()
    assert np.array_equal(found, expected)
