"""RMI whose covariances are of all samples of a batch together."""

import numpy as np
import pytest
import torch

from rmiseg.losses import RMILoss
from support.loss_cases import labelled_batch, loss_batch

implementations = pytest.mark.parametrize("implementation", ["auto", "chunked", "plain"])


def by_numpy(probabilities, labels, size, alpha=5e-4):
    """1/2 log det of the posterior covariance, a side of its matrix, of maps (N, h, w): the textbook formula."""
    n, h, w = labels.shape
    regions = [
        np.concatenate([maps[k, i : i + size, j : j + size].ravel() for maps in (probabilities, labels)])
        for k in range(n)
        for i in range(h - size + 1)
        for j in range(w - size + 1)
    ]
    z = np.stack(regions)
    z = z - z.mean(axis=0)
    s, d, eye = z.T @ z, size**2, np.eye(size**2)
    posterior = s[d:, d:] - s[d:, :d] @ np.linalg.inv(s[:d, :d] + alpha * eye) @ s[:d, d:]
    return 0.5 * np.linalg.slogdet(posterior + alpha * eye)[1] / d


@implementations
@pytest.mark.parametrize("size", [1, 2, 3])
def test_value_is_that_of_the_formula_over_all_samples(implementation, size):
    logits, target = labelled_batch(0, 3, 4, 12, 14, ignored=0)
    loss = RMILoss(4, size, pool_size=1, weight_lambda=0.0, covariance="batch", implementation=implementation)
    probabilities = 1 / (1 + np.exp(-logits)) + 1e-6
    expected = sum(by_numpy(probabilities[:, c], (target == c).astype(float), size) for c in range(4))
    assert loss(torch.tensor(logits), torch.tensor(target)).item() == pytest.approx(expected, rel=1e-9)


@implementations
def test_one_sample_is_a_batch_of_itself(implementation):
    logits, target = loss_batch(n=1)
    values = [RMILoss(3, covariance=kind, implementation=implementation)(logits, target) for kind in ("sum", "batch")]
    assert values[0].item() == pytest.approx(values[1].item(), rel=1e-6)
    gradients = [torch.autograd.grad(value, logits)[0] for value in values]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


@implementations
def test_a_class_that_a_sample_does_not_show_has_a_gradient_there(implementation):
    logits, target = loss_batch(n=2, ignored=0, dtype=torch.float64)
    target[1][target[1] == 2] = 0
    with torch.no_grad():  # right in the first sample; in the second there is a square of it that is not there
        logits[:, 2] = 6.0 * (target == 2) - 3
        logits[1, 2, 8:16, 8:16] = 3
    found = {}
    for kind in ("sum", "batch"):
        loss = RMILoss(3, weight_lambda=0.0, covariance=kind, implementation=implementation)
        found[kind] = torch.autograd.grad(loss(logits, target), logits)[0][1, 2]
    assert not found["sum"].any()
    assert found["batch"][8:16, 8:16].sum() > 0  # less of it is a lower loss


@pytest.mark.parametrize("pool", ["avg", "max", "interp"])
def test_maps_without_a_valid_pixel_do_not_count(pool):
    """Of multilabel masks, where that differs by class; and images of 48 pixels, whose regions are not copied."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 48, 50, generator=generator, dtype=torch.float64).requires_grad_()
    target = (
        (torch.rand(3, 2, 12, 25, generator=generator) < 0.4).repeat_interleave(4, 2).repeat_interleave(2, 3).long()
    )
    target[1, 0], target[2] = 255, 255
    found = []
    for implementation in ("auto", "plain"):
        options = {"pool": pool, "pool_size": 2 if pool == "interp" else 1, "implementation": implementation}
        loss = RMILoss(2, 3, mode="multilabel", covariance="batch", subtract_floor=True, **options)
        value = loss(logits, target)
        found.append((value, *torch.autograd.grad(value, logits)))
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-12)
    assert not found[0][1][2].any()
    assert found[0][1][1, 1].any()


@implementations
def test_order_of_samples(implementation):
    logits, target = loss_batch(n=3, dtype=torch.float64)
    loss = RMILoss(3, covariance="batch", implementation=implementation)
    order = torch.tensor([2, 0, 1])
    assert loss(logits, target).item() == pytest.approx(loss(logits[order], target[order]).item(), rel=1e-12)


def test_losses_of_single_samples_are_as_if_they_were_alone():
    logits, target = loss_batch(n=3, dtype=torch.float64)
    for reduction in ("none", "sum"):
        alone, together = (
            RMILoss(3, covariance=kind, reduction=reduction)(logits, target) for kind in ("sum", "batch")
        )
        torch.testing.assert_close(alone, together)


def test_parts_are_of_classes_that_are_in_the_batch():
    logits, target = loss_batch(n=2, ignored=0)
    target[1] = 0
    perfect = 60 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float() - 30
    loss = RMILoss(3, covariance="batch")
    assert loss(perfect, target, return_parts=True)[1]["rmi"].item() == pytest.approx(0, abs=1e-3)
    assert loss(logits, target, return_parts=True)[1]["rmi"].item() > 1
