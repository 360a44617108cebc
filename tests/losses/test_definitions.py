"""Each loss against its formula, in value; and its gradient against finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmiseg.losses import AffinityLoss, BCELoss, CELoss, PyramidLoss, RMILoss
from support import naive
from support.loss_cases import build, each_loss, labelled_batch


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 2),
    c=st.integers(1, 4),
    h=st.integers(8, 40),
    w=st.integers(8, 40),
    region_size=st.integers(1, 4),
    pool=st.sampled_from(["avg", "max", "interp"]),
    pool_size=st.integers(1, 5),
    pixel_loss=st.sampled_from(["bce", "ce"]),
    combine=st.sampled_from(["convex", "additive"]),
    weight_lambda=st.floats(0, 1),
    stride=st.sampled_from([1, 2, 4]),
)
@settings(max_examples=60)
def test_rmi_is_its_formula(seed, n, c, h, w, region_size, pool, pool_size, pixel_loss, combine, weight_lambda, stride):
    logits, target = labelled_batch(seed, n, c, h, w, stride)
    options = {
        "region_size": region_size,
        "pool": pool,
        "pool_size": pool_size,
        "weight_lambda": weight_lambda,
        "combine": combine,
        "pixel_loss": pixel_loss,
    }
    loss = RMILoss(c, **options)
    x, t = torch.tensor(logits), torch.tensor(target)
    pooled = naive.pooled_size((h, w), pool, pool_size)
    if min(pooled) < region_size:
        with pytest.raises(ValueError, match="too small for regions"):
            loss(x, t)
        return
    value = loss(x, t).item()
    full = naive.interpolate(logits, (h, w))
    pixel = {"ce": naive.cross_entropy, "bce": naive.binary_cross_entropy}[pixel_loss](full, target)
    rmi = naive.rmi(full, target, region_size, pool, pool_size, clamp=pixel_loss == "ce")
    if not (target != 255).any():
        rmi = 0
    if combine == "convex":
        expected = weight_lambda * pixel + (1 - weight_lambda) * rmi
    else:
        expected = pixel + weight_lambda * rmi
    assert value == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([(13, 17), (9, 10, 11)]),
    soft=st.booleans(),
    region_size=st.integers(1, 3),
    pool=st.sampled_from(["avg", "max", "interp"]),
    pool_size=st.integers(1, 3),
    pixel_loss=st.sampled_from(["bce", "ce"]),
    stride=st.sampled_from([1, 2]),
    implementation=st.sampled_from(["auto", "plain"]),
)
@settings(max_examples=40)
def test_rmi_of_volumes_and_probabilities_is_its_formula(
    seed, size, soft, region_size, pool, pool_size, pixel_loss, stride, implementation
):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 3, (2, *size))
    target[rng.random(target.shape) < 0.1] = 255
    if soft:
        target = np.where(
            rng.random((2, 1, *size)) < 0.1,
            255,
            rng.dirichlet([0.3] * 3, (2, *size)).transpose(0, -1, *range(1, len(size) + 1)),
        )
    logits = 2 * rng.normal(size=(2, 3, *(-(-side // stride) for side in size)))
    options = {"region_size": region_size, "pool": pool, "pool_size": pool_size, "pixel_loss": pixel_loss}
    value = RMILoss(3, weight_lambda=0.3, implementation=implementation, **options)(
        torch.tensor(logits), torch.tensor(target)
    )
    full = naive.interpolate(logits, size)
    pixel = {"ce": naive.cross_entropy, "bce": naive.binary_cross_entropy}[pixel_loss](full, target)
    rmi = naive.rmi(full, target, region_size, pool, pool_size, clamp=pixel_loss == "ce")
    assert value.item() == pytest.approx(0.3 * pixel + 0.7 * rmi, rel=1e-6, abs=1e-6)


@given(seed=st.integers(0, 2**32 - 1), stride=st.sampled_from([1, 2, 3]))
@settings(max_examples=20)
def test_pixel_losses_are_their_formulas(seed, stride):
    logits, target = labelled_batch(seed, 2, 3, 12, 15, stride)
    full = naive.interpolate(logits, target.shape[1:])
    x, t = torch.tensor(logits), torch.tensor(target)
    assert CELoss(3)(x, t).item() == pytest.approx(naive.cross_entropy(full, target))
    assert BCELoss(3)(x, t).item() == pytest.approx(naive.binary_cross_entropy(full, target))
    assert PyramidLoss(3, scales=(1.0,))(x, t).item() == pytest.approx(naive.cross_entropy(full, target))
    half = naive.interpolate(full, (6, 7))
    rows, columns = np.arange(6) * 2, np.floor(np.arange(7) * 15 / 7).astype(int)
    expected = naive.cross_entropy(half, target[:, rows][:, :, columns])
    assert PyramidLoss(3, scales=(0.5,))(x, t).item() == pytest.approx(expected)


def test_affinity_weight_decays():
    logits, target = (torch.tensor(a) for a in labelled_batch(0, 1, 3, 32, 32))
    loss = AffinityLoss(3, max_steps=100, downsample=4)
    cross_entropy = CELoss(3)(logits, target)
    first, last = (loss(logits, target, step=s) - cross_entropy for s in (0, 100))
    assert first > 0
    assert last.item() == pytest.approx(first.item() / 20)


@pytest.mark.parametrize("stride", [1, 2])
@each_loss
def test_gradcheck(case, stride):
    logits, target = labelled_batch(3, 2, 2, 8, 9, stride)
    x, t = torch.tensor(logits, requires_grad=True), torch.tensor(target)
    loss = build(case, 2, align_corners=stride == 2)
    assert torch.autograd.gradcheck(lambda x: 3.7 * loss(x, t), x)


@each_loss
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 3e-3), (torch.bfloat16, 2e-2)])
def test_dtypes(case, dtype, tolerance):
    """Value and gradient of low precision are those of float64 at the same (rounded) logits."""
    logits, target = labelled_batch(5, 2, 3, 33, 41, stride=2)
    x = torch.tensor(logits).to(dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    t = torch.tensor(target)
    loss = build(case, 3)
    value, expected = loss(x, t), loss(exact, t)
    assert value.dtype == torch.float32
    assert expected.dtype == torch.float64
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    scale = 2.0**10  # as a gradient scaler would, so that float16 does not underflow
    (scale * value).backward()
    (scale * expected).backward()
    assert x.grad.dtype == dtype
    assert (x.grad.double() - exact.grad).norm() <= tolerance * exact.grad.norm()


@each_loss
def test_inside_autocast(case):
    logits, target = labelled_batch(6, 2, 3, 32, 32, stride=2)
    x, t = torch.tensor(logits).float(), torch.tensor(target)
    loss = build(case, 3)
    expected = loss(x, t)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(x, t), expected)


def disk(size, radius):
    y, x = np.mgrid[:size, :size] - size // 2
    return (y**2 + x**2 < radius**2).astype(int)


@pytest.mark.parametrize(("scale", "tolerance"), [(0.1, 1e-4), (3.0, 1e-3), (10.0, 1e-2), (50.0, 1.0)])
def test_large_simple_masks_never_fail(scale, tolerance):
    """Discs at the paper's size, where the textbook formula in float32 is singular.

    The larger the logits, the coarser float32 knows 1 - p, and the gradient with it.
    """
    target = torch.tensor(np.stack([disk(513, r) for r in (8, 40, 180)]))
    x = (scale * (2.0 * torch.nn.functional.one_hot(target, 2).permute(0, 3, 1, 2) - 1)).float().requires_grad_()
    value = RMILoss(2)(x, target)
    value.backward()
    assert value.isfinite()
    assert x.grad.isfinite().all()
    exact = x.detach().double().requires_grad_()
    expected = RMILoss(2)(exact, target)
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert (x.grad - exact.grad).norm() <= tolerance * exact.grad.norm()
