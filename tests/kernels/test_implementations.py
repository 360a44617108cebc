"""The fast implementations against the plain definition in float64: values and gradients, over all settings."""

import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rmiseg import functional
from rmiseg.benchmarks.measure import number_of_threads
from rmiseg.functional import RMIOptions
from rmiseg.kernels import backends, chunked, native, regions
from rmiseg.kernels import pixel as pixel_op
from rmiseg.kernels import rmi as rmi_op
from rmiseg.kernels import soft as soft_kernels
from rmiseg.kernels.interpolation import Resampler
from rmiseg.kernels.native import library
from rmiseg.losses import CELoss, RMILoss
from support.batches import (
    LAYOUTS,
    TOLERANCES,
    cases,
    examples,
    gradient_tolerance,
    in_layout,
    needs_no_ties,
    random_batch,
    some_weights,
    without_ties,
)

needs_native = pytest.mark.skipif(not native.is_available(), reason="installed without a C++ compiler")
fast = pytest.mark.parametrize("implementation", [pytest.param("native", marks=needs_native), "chunked"])


def run(implementation, logits, target, valid, options, grad_rmi, class_weights=None):
    logits = logits.detach().requires_grad_()
    inputs = logits, target, valid, class_weights, grad_rmi
    sums, rmi, present, _ = rmi_op.rmi_sums(*inputs, options, implementation)
    pixel, weighted = sums.unbind(1)
    assert torch.allclose(weighted, (rmi * grad_rmi).sum(1).to(weighted.dtype))
    # A gradient scaler's factor keeps float16 gradients from underflow; gradients of pixel losses differ by sample.
    grad_pixel = 0.7 + torch.arange(len(pixel))
    (256 * ((grad_pixel * pixel).sum() + weighted.sum())).backward()
    return pixel.detach().double(), rmi, present, logits.grad.double() / 256


def options_of(case):
    settings = case.region_size, case.pool, case.pool_size, case.pixel_loss, case.align_corners, case.alpha
    return RMIOptions(*settings, batch=case.c if case.batch else 0)


ALPHAS = st.sampled_from([5e-4, 5e-4, 1e-3, 20.0])


@fast
@given(
    case=cases(
        seed=st.integers(0, 2**32 - 1),
        n=st.integers(1, 3),
        c=st.integers(1, 5),
        size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
        region_size=st.integers(1, 10),
        pool=st.sampled_from(["avg", "max", "interp"]),
        pool_size=st.integers(1, 8),
        pixel_loss=st.sampled_from(["bce", "ce"]),
        stride=st.sampled_from([1, 1, 2, 3, 8]),
        align_corners=st.booleans(),
        alpha=ALPHAS,
        batch=st.booleans(),
    ),
    dtype=st.sampled_from(list(TOLERANCES)),
    strip=st.sampled_from([1, 300, 3000, 1 << 19]),
    block=st.sampled_from([1, 1 << 19]),
    layout=LAYOUTS,
    threads=st.integers(1, 3),
)
@examples(100, many=300)
@pytest.mark.slow
def test_rmi_is_the_plain_definition(implementation, case, dtype, strip, block, layout, threads):
    if min(functional.pooled_size(case.size, case.pool, case.pool_size)) < case.region_size:
        return
    none = 0.2 if case.pixel_loss == "bce" and case.seed % 2 else 0.0
    logits, target, valid, grad_rmi = random_batch(case.seed, case.n, case.c, *case.size, case.stride, none)
    if needs_no_ties(dtype, case.pool):
        logits = without_ties(case.seed, logits)
    weights = some_weights(case.seed, case.c)
    logits = in_layout(logits.to(dtype), layout)
    options = options_of(case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked, "STRIP", strip)
        patch.setattr(regions, "BLOCK", block)
        with number_of_threads(threads):
            pixel, rmi, present, grad = run(implementation, logits, target, valid, options, grad_rmi, weights)
    expected = run("plain", logits.double(), target, valid, options, grad_rmi, weights)
    value_tolerance, grad_tolerance = TOLERANCES[dtype][0], gradient_tolerance(dtype, case.pool)
    assert ((pixel - expected[0]).abs() <= value_tolerance * (1 + expected[0].abs())).all()
    assert torch.allclose(rmi, expected[1], rtol=value_tolerance, atol=10 * value_tolerance)
    assert torch.equal(present, expected[2])
    # Where the gradient is all cancellation, as exact as the plain definition is in the same dtype, or as rounding of
    # the parts that cancel: near 1 for each target pixel that a logit serves.
    rounding = (
        (1e-11 if dtype == torch.float64 else 5e-7)
        * (1 + target.numel() / logits[:, 0].numel())
        * logits.numel() ** 0.5
    )
    plain_error = (run("plain", logits, target, valid, options, grad_rmi, weights)[3] - expected[3]).norm()
    assert (grad - expected[3]).norm() <= max(grad_tolerance * expected[3].norm(), 3 * plain_error, rounding)


@fast
@given(
    case=cases(
        seed=st.integers(0, 2**32 - 1),
        n=st.integers(0, 2),
        c=st.integers(1, 4),
        size=st.lists(st.integers(1, 24), min_size=2, max_size=3),
        soft=st.booleans(),
        region_size=st.integers(1, 3),
        pool=st.sampled_from(["avg", "max", "interp"]),
        pool_size=st.integers(1, 5),
        pixel_loss=st.sampled_from(["bce", "ce"]),
        stride=st.sampled_from([1, 2, 5]),
        align_corners=st.booleans(),
        alpha=ALPHAS,
        batch=st.booleans(),
    ),
    dtype=st.sampled_from(list(TOLERANCES)),
    block=st.sampled_from([1, 3000, 1 << 19]),
    channels_last=st.booleans(),
    threads=st.integers(1, 3),
)
@examples(60, many=150)
@pytest.mark.slow
def test_soft_targets_and_volumes_are_the_plain_definition(implementation, case, dtype, block, channels_last, threads):
    n, c, size, soft, stride = case.n, case.c, case.size, case.soft, case.stride
    if min(functional.pooled_size(size, case.pool, case.pool_size)) < case.region_size or min(size) < case.pool_size:
        return
    rng = np.random.default_rng(case.seed)
    if soft:
        target = torch.tensor(rng.dirichlet([0.5] * c, (n, *size))).movedim(-1, 1).to(rng.choice([torch.half, dtype]))
    else:
        target = torch.tensor(rng.integers(0, c, (n, *size)))
    valid = torch.tensor(rng.random((n, *size)) < rng.choice([0.9, 1.0]))
    if soft:
        target = target.masked_fill(~valid.unsqueeze(1), float("nan"))  # where it is not valid, anything
    logits = torch.tensor(rng.normal(size=(n, c, *(-(-side // stride) for side in size))) * 2)
    logits = (without_ties(case.seed, logits) if needs_no_ties(dtype, case.pool) else logits).to(dtype)
    if channels_last:
        logits = logits.contiguous(memory_format=torch.channels_last if len(size) == 2 else torch.channels_last_3d)
    options = options_of(case)
    others = target, valid, options, torch.tensor(rng.normal(size=(n, c))), some_weights(case.seed, c)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(soft_kernels, "BLOCK", block)
        patch.setattr(regions, "BLOCK", block)
        if not soft and len(size) == 2:  # which others serve elsewhere
            implementation = "soft"
        with number_of_threads(threads):
            pixel, rmi, present, grad = run(implementation, logits, *others)
            pixel_alone = pixel_op.pixel_sums(
                logits, target, valid, others[-1], case.pixel_loss, case.align_corners, implementation
            )
    expected = run("plain", logits.double(), *others)
    value_tolerance, grad_tolerance = TOLERANCES[dtype][0], gradient_tolerance(dtype, case.pool)
    assert torch.allclose(pixel, expected[0], rtol=value_tolerance, atol=value_tolerance)
    interpolated_volume = len(size) == 3 and case.pool == "interp"  # which has no kernels, unlike its pixel loss alone
    assert interpolated_volume or torch.equal(pixel_alone.double(), pixel)
    assert torch.allclose(pixel_alone.double(), pixel, rtol=value_tolerance, atol=value_tolerance)
    assert torch.allclose(rmi, expected[1], rtol=value_tolerance, atol=10 * value_tolerance)
    assert torch.equal(present, expected[2])
    rounding = (1e-11 if dtype == torch.float64 else 5e-7) * (1 + stride ** len(size)) * logits.numel() ** 0.5
    plain_error = (run("plain", logits, *others)[3] - expected[3]).norm()
    assert (grad - expected[3]).norm() <= max(grad_tolerance * expected[3].norm(), 3 * plain_error, rounding)


@fast
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 3),
    c=st.integers(1, 70),
    h=st.integers(1, 40),
    w=st.integers(1, 40),
    pixel_loss=st.sampled_from(["bce", "ce"]),
    stride=st.sampled_from([1, 2, 3, 8]),
    align_corners=st.booleans(),
    dtype=st.sampled_from(list(TOLERANCES)),
    strip=st.sampled_from([1, 3000]),
    layout=LAYOUTS,
)
@examples(60, many=150)
@pytest.mark.slow
def test_pixel_loss_is_the_plain_definition(
    implementation, seed, n, c, h, w, pixel_loss, stride, align_corners, dtype, strip, layout
):
    logits, target, valid, _ = random_batch(seed, n, c, h, w, stride)
    weights = some_weights(seed, c)
    logits = in_layout(logits.to(dtype), layout).requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked, "STRIP", strip)
        found = pixel_op.pixel_sums(logits, target, valid, weights, pixel_loss, align_corners, implementation)
        upstream = 0.7 + torch.arange(n)
        (grad,) = torch.autograd.grad(found, logits, upstream.to(found.dtype))
    exact = logits.detach().double().requires_grad_()
    expected = pixel_op.pixel_sums(exact, target, valid, weights, pixel_loss, align_corners, "plain")
    (expected_grad,) = torch.autograd.grad(expected, exact, upstream.to(expected.dtype))
    value_tolerance, grad_tolerance = TOLERANCES[dtype]
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert grad.dtype == dtype
    assert torch.allclose(found.double(), expected, rtol=value_tolerance, atol=value_tolerance)
    assert (grad.double() - expected_grad).norm() <= grad_tolerance * (expected_grad.norm() + 1e-1)


@fast
@pytest.mark.parametrize("pixel_loss", ["bce", "ce"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("stride", [1, 4])
def test_non_finite_logits_give_non_finite_sums_and_no_exception(implementation, pixel_loss, value, stride):
    logits, target, valid, grad_rmi = random_batch(0, 1, 3, 40, 44, stride)
    logits[0, 1, 5, 7] = value
    options = RMIOptions(3, "avg", 4, pixel_loss, False)
    sums, rmi, _, _ = rmi_op.rmi_sums(logits.float(), target, valid, None, grad_rmi, options, implementation)
    assert not sums[:, 0].isfinite()
    if value != value:
        assert rmi[0, 1].isnan()
    assert rmi[0, [0, 2]].isfinite().all()


@fast
def test_same_bits_every_time_and_for_any_number_of_threads(implementation):
    logits, target, valid, grad_rmi = random_batch(1, 2, 5, 120, 130, 1)
    options = RMIOptions(3, "avg", 4, "bce", False)
    first = run(implementation, logits.float(), target, valid, options, grad_rmi)
    for threads in (1, 2, 7) if implementation == "native" else (None, None):
        with number_of_threads(threads):
            again = run(implementation, logits.float(), target, valid, options, grad_rmi)
        assert all(torch.equal(a, b) for a, b in zip(first, again))


@pytest.mark.parametrize(
    "implementation",
    [
        pytest.param("native", marks=needs_native),
        pytest.param("triton", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")),
        "chunked",
        "soft",
    ],
)
@pytest.mark.parametrize("pool", ["avg", "max", "interp"])
@pytest.mark.parametrize("pixel_loss", ["bce", "ce"])
@pytest.mark.slow
def test_operators_keep_the_rules_of_pytorch(implementation, pool, pixel_loss):
    device = "cuda" if implementation == "triton" else "cpu"
    logits, target, valid, _ = (a.to(device) for a in random_batch(0, 2, 3, 24, 28, 2))
    if implementation == "soft":
        target, logits = functional.one_hot(target, valid, 3, torch.float16), logits.contiguous()
    logits = logits.float().requires_grad_()
    weights = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64, device=device) if pool == "avg" else None
    map_weights = torch.ones(2, 3, dtype=torch.float64, device=device)
    inputs = target, valid, weights, map_weights
    packed = [2, 2, 0, 3 if pool == "max" else 0], f"{implementation} {pool} {pixel_loss}", 5e-4
    arguments = (logits, *inputs, *packed, None if pool == "avg" else 0.0, True, True)
    torch.library.opcheck(rmi_op.rmi_operator, arguments)
    gradient_maps = rmi_op.rmi_operator(*arguments)[4].detach()
    grad_sums = torch.tensor([[0.5, 1.0], [2.0, 1.0]], device=device)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(
        rmi_op.rmi_backward_operator,
        (grad_sums, logits.detach(), *inputs, gradient_maps, *packed),
        test_utils=checks,
    )
    arguments = (logits, target, valid, weights, pixel_loss, False, implementation)
    torch.library.opcheck(pixel_op.pixel_operator, arguments)
    arguments = (grad_sums[:, 0], logits.detach(), *arguments[1:])
    torch.library.opcheck(pixel_op.pixel_backward_operator, arguments, test_utils=checks)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("source", "size"), [((5, 7), (33, 50)), ((1, 1), (6, 1)), ((9, 4), (9, 5)), ((40, 31), (10, 7))]
)
def test_resampler_is_interpolate(source, size, align_corners):
    maps = torch.randn(3, *source, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.interpolate(maps[None], size, mode="bilinear", align_corners=align_corners)[0]
    grad = torch.randn_like(expected)
    (expected_grad,) = torch.autograd.grad(expected, maps, grad)
    resampler = Resampler(source, size, align_corners)
    found_grad = torch.zeros_like(maps)
    parts = []
    for start in range(0, size[0], 4):
        rows = slice(start, min(start + 4, size[0]))
        parts.append(resampler.rows(maps.detach(), rows, torch.float64))
        resampler.add_rows_gradient(grad[:, rows], rows, found_grad)
    assert torch.allclose(torch.cat(parts, dim=1), expected)
    assert torch.allclose(found_grad, expected_grad)
    # And from the other side: rows of the source at a time.
    result, parts = torch.zeros_like(expected), []
    for start in range(0, source[0], 2):
        rows = slice(start, min(start + 2, source[0]))
        resampler.add_reduced(maps.detach()[:, rows], rows, result)
        parts.append(resampler.expanded(grad, rows))
    assert torch.allclose(result, expected)
    assert torch.allclose(torch.cat(parts, dim=1), expected_grad)


@fast
def test_more_classes_than_one_product_holds(implementation):
    logits, target, valid, grad_rmi = random_batch(0, 1, 150, 24, 24, 1)
    logits *= 30  # saturated: the products come near their limits
    options = RMIOptions(3, "avg", 2, "bce", False)
    found = run(implementation, logits.float(), target, valid, options, grad_rmi)
    expected = run("plain", logits.double(), target, valid, options, grad_rmi)
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-6)


@fast
@pytest.mark.parametrize("loss", [RMILoss, CELoss])
def test_double_backward_is_refused(implementation, loss):
    logits = torch.randn(1, 2, 16, 16, requires_grad=True)
    target = torch.zeros(1, 16, 16, dtype=torch.long)
    (grad,) = torch.autograd.grad(loss(2, implementation=implementation)(logits, target), logits, create_graph=True)
    with pytest.raises(RuntimeError, match=r"cannot be differentiated twice.*implementation='plain'"):
        grad.square().sum().backward()
    (grad,) = torch.autograd.grad(loss(2, implementation="plain")(logits, target), logits, create_graph=True)
    grad.square().sum().backward()


def test_implementation_can_be_chosen():
    logits, target = torch.randn(1, 2, 16, 16), torch.zeros(1, 16, 16, dtype=torch.long)
    values = [RMILoss(2, pool_size=2, implementation=i)(logits, target).item() for i in ("auto", "chunked", "plain")]
    assert values[0] == pytest.approx(values[2], rel=1e-6)
    assert values[1] == pytest.approx(values[2], rel=1e-6)
    with pytest.raises(ValueError, match="must be one of auto, native, triton, chunked, plain; got 'cuda'"):
        RMILoss(2, implementation="cuda")
    with pytest.raises(ValueError, match="implementation='triton' is for cuda logits, got cpu ones"):
        RMILoss(2, implementation="triton")(logits, target)


@pytest.mark.parametrize("implementation", ["native", "triton"])
def test_implementation_that_is_not_installed_says_why(implementation, monkeypatch):
    monkeypatch.setattr(backends, "_exists", lambda name: False)
    with pytest.raises(ValueError, match=r"without a C\+\+ compiler|needs the package triton"):
        RMILoss(2, implementation=implementation)
    RMILoss(2, implementation="auto")(torch.randn(1, 2, 32, 32), torch.zeros(1, 32, 32, dtype=torch.long))


@needs_native
def test_library_of_other_sources_is_refused(monkeypatch):
    found, changed = library.LAYOUTS["regions"].size, struct.Struct("32q")
    library.load.cache_clear()
    try:
        monkeypatch.setitem(library.LAYOUTS, "regions", changed)
        with pytest.raises(
            ImportError, match=rf"rmiseg_regions has {found} bytes there and {changed.size} here; build"
        ):
            native.is_available()
        monkeypatch.setitem(library.LAYOUTS, "no_such", changed)
        monkeypatch.delitem(library.LAYOUTS, "regions")
        with pytest.raises(ImportError, match="an unknown number of bytes"):
            native.is_available()
    finally:
        library.load.cache_clear()
