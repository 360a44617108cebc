"""The Triton kernels against the plain definition in float64.

Without a GPU they run in Triton's interpreter, on small inputs, and are compiled for one without being run.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")  # conftest.py has told it to interpret where there is no GPU

from hypothesis import given
from hypothesis import strategies as st

from rmiseg import functional
from rmiseg.functional import RMIOptions
from rmiseg.kernels import regions
from rmiseg.kernels.triton import launch as kernels
from rmiseg.kernels.triton import regions as triton_regions
from support.batches import (
    DEVICE,
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

pytestmark = pytest.mark.slow

NOT_FINITE = (float("nan"), float("inf"), float("-inf"))
# The interpreter cuts off instead of rounding.
BFLOAT16_TOLERANCE = 5e-3 if DEVICE == "cuda" else 8e-3


def upstream(pixel):
    """Gradients of the pixel losses, which differ by sample."""
    return 256 * (0.7 + torch.arange(len(pixel), device=DEVICE)).to(pixel.dtype)


def run_plain(logits, target, valid, options, grad_rmi, weights=None):
    logits = logits.detach().requires_grad_()
    pixel, rmi, present = functional.rmi_sums(logits, target, valid, weights, options)
    ((upstream(pixel) * pixel).sum() + (256 * grad_rmi * rmi).sum()).backward()
    return pixel.detach().double(), rmi.detach(), present, logits.grad.double() / 256


def run_triton(logits, target, valid, options, grad_rmi, weights=None):
    before = [a.clone() for a in (logits, target, valid)]
    inputs = logits, target, valid, weights
    pixel, rmi, present, _, gradient_maps = kernels.rmi_forward(*inputs, options, True, False)
    of_maps = regions.gradient_in_rmi(pixel.new_full((len(pixel), 2), 256), grad_rmi, options)
    gradient = kernels.rmi_backward(upstream(pixel), of_maps, *inputs, gradient_maps, options)
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(before, (logits, target, valid)))
    assert gradient.dtype == logits.dtype
    assert gradient.stride() == torch.empty_like(logits).stride()
    return pixel.double(), rmi, present, gradient.double() / 256


def check(logits, target, valid, options, grad_rmi, weights=None):
    found = run_triton(logits, target, valid, options, grad_rmi, weights)
    expected = run_plain(logits.double(), target, valid, options, grad_rmi, weights)
    value_tolerance, grad_tolerance = TOLERANCES[logits.dtype][0], gradient_tolerance(logits.dtype, options.pool)
    if logits.dtype == torch.bfloat16:
        grad_tolerance = BFLOAT16_TOLERANCE
    assert ((found[0] - expected[0]).abs() <= value_tolerance * (1 + expected[0].abs())).all()
    assert torch.allclose(found[1], expected[1], rtol=value_tolerance, atol=10 * value_tolerance)
    assert torch.equal(found[2], expected[2])
    # Where the gradient is all cancellation, as exact as the plain definition is in the same dtype, or as rounding of
    # the parts that cancel: near 1 for each target pixel that a logit serves.
    rounding = (
        (1e-11 if logits.dtype == torch.float64 else 5e-7)
        * (1 + target.numel() / logits[:, 0].numel())
        * logits.numel() ** 0.5
    )
    plain_error = (run_plain(logits, target, valid, options, grad_rmi, weights)[3] - expected[3]).norm()
    assert (found[3] - expected[3]).norm() <= max(grad_tolerance * expected[3].norm(), 3 * plain_error, rounding)


@given(
    case=cases(
        seed=st.integers(0, 2**32 - 1),
        n=st.integers(1, 2),
        c=st.integers(1, 4),
        size=st.tuples(st.integers(1, 32), st.integers(1, 32)),
        region_size=st.sampled_from([1, 1, 2, 3, 10]),
        pool=st.sampled_from(["avg", "max", "interp"]),
        pool_size=st.integers(1, 9),
        pixel_loss=st.sampled_from(["bce", "ce"]),
        stride=st.sampled_from([1, 1, 2, 3, 8, 40]),
        align_corners=st.booleans(),
        alpha=st.sampled_from([5e-4, 20.0]),
        batch=st.booleans(),
    ),
    dtype=st.sampled_from(list(TOLERANCES)),
    programs=st.sampled_from([1, 4096]),
    maps_bytes=st.sampled_from([1, 1 << 26]),
    layout=LAYOUTS,
)
@examples(100 if DEVICE == "cuda" else 12, many=100 if DEVICE == "cuda" else 40)
def test_triton_is_the_plain_definition(case, dtype, programs, maps_bytes, layout):
    if min(functional.pooled_size(case.size, case.pool, case.pool_size)) < case.region_size:
        return
    none = 0.2 if case.pixel_loss == "bce" and case.seed % 2 else 0.0
    logits, target, valid, grad_rmi = random_batch(case.seed, case.n, case.c, *case.size, case.stride, none, DEVICE)
    if needs_no_ties(dtype, case.pool):
        logits = without_ties(case.seed, logits)
    logits = in_layout(logits.to(dtype), layout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "PROGRAMS", programs)
        patch.setattr(kernels, "MAPS_BYTES", maps_bytes)
        settings = case.region_size, case.pool, case.pool_size, case.pixel_loss, case.align_corners, case.alpha
        options = RMIOptions(*settings, batch=case.c if case.batch else 0)
        check(logits, target, valid, options, grad_rmi, some_weights(case.seed, case.c, DEVICE))


@pytest.mark.parametrize("pool", ["avg", "max", "interp"])
def test_a_sample_without_a_valid_pixel_does_not_count_in_a_batch(pool):
    logits, target, valid, grad_rmi = random_batch(5, 3, 2, 12, 12, 1, device=DEVICE)
    valid[1] = False
    check(logits, target, valid, RMIOptions(2, pool, 3, "bce", False, batch=2), grad_rmi)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("pixel_loss", ["bce", "ce"])
@pytest.mark.parametrize(("stride", "align_corners"), [(1, False), (4, False), (3, True)])
def test_pixel_loss_alone(pixel_loss, stride, align_corners, weighted):
    logits, target, valid, _ = random_batch(0, 2, 3, 21, 26, stride, device=DEVICE)
    weights = torch.tensor([0.2, 3.0, 1.0], dtype=torch.float64, device=DEVICE) if weighted else None
    expected_input = logits.detach().requires_grad_()
    upsampled = functional.upsample_logits(expected_input, (21, 26), align_corners)
    expected = functional.PIXEL_SUMS[pixel_loss](upsampled, target, valid, weights)
    expected.backward(upstream(expected))
    inputs = logits.float(), target, valid, weights, pixel_loss, align_corners
    found = kernels.pixel_forward(*inputs)
    grad = kernels.pixel_backward(upstream(found), *inputs)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), expected, rtol=1e-6)
    assert (grad - expected_input.grad).norm() <= 1e-5 * expected_input.grad.norm()


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_max_pooling_in_half_precision(dtype, stride):
    logits, target, valid, grad_rmi = random_batch(0, 1, 2, 20, 25, stride, device=DEVICE)
    logits = without_ties(0, logits).to(dtype)
    check(logits, target, valid, RMIOptions(2, "max", 4, "bce", False), grad_rmi)


def test_many_classes():
    """More than one product of 1 + exp(-|x|) holds, saturated; and a class for the last label."""
    logits, target, valid, grad_rmi = random_batch(0, 1, 20, 4, 8, 1, device=DEVICE)
    check((30 * logits).float(), target, valid, RMIOptions(1, "avg", 4, "bce", False), grad_rmi)
    check((30 * logits).float(), target, valid, RMIOptions(1, "avg", 4, "ce", False), grad_rmi)


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize(("pixel_loss", "stride"), [("bce", 1), ("ce", 1), ("bce", 3)])
def test_not_finite(value, pixel_loss, stride):
    logits, target, valid, grad_rmi = random_batch(3, 1, 2, 12, 12, stride, device=DEVICE)
    valid[:] = True
    target.clamp_(max=1)
    target[0, 7, 7] = 0 if value < 0 else 1
    logits[0, 0, 7 // stride, 7 // stride] = value
    options = RMIOptions(2, "avg", 4, pixel_loss, False)
    found = run_triton(logits.float(), target, valid, options, grad_rmi)
    expected = run_plain(logits.float(), target, valid, options, grad_rmi)
    for a, b in zip(found, expected):
        assert torch.equal(a.isnan() | a.isinf(), b.isnan() | b.isinf()) or a.ndim == 4
    assert not found[0].isfinite().any()
    if value != value:
        assert found[1][0, 0].isnan()
        assert found[1][0, 1].isfinite() or stride > 1
        assert found[3].isnan().any()


@pytest.mark.parametrize(
    ("pixel_loss", "pool", "stride", "values"),
    [
        ("bce", "avg", 1, NOT_FINITE),
        ("ce", "max", 1, [float("inf")]),
        ("bce", "interp", 1, [float("nan")]),
        ("ce", "avg", 3, [float("-inf")]),
        ("bce", "avg", 3, [float("nan")]),
    ],
)
def test_not_finite_at_ignored_pixels(pixel_loss, pool, stride, values):
    logits, target, valid, grad_rmi = random_batch(3, 1, 2, 12, 12, stride, device=DEVICE)
    valid[:] = True
    valid[0, 3:] = False
    options = RMIOptions(2, pool, 3, pixel_loss, False)
    expected = run_triton(logits.float(), target, valid, options, grad_rmi)
    for index, value in enumerate(values):
        logits[0, 1, (9 - index) // stride, (6 + 2 * index) // stride] = value
    found = run_triton(logits.float(), target, valid, options, grad_rmi)
    assert all(torch.equal(a, b) for a, b in zip(found, expected))


def test_nothing_valid():
    logits, target, valid, grad_rmi = random_batch(4, 1, 2, 12, 12, 1, device=DEVICE)
    valid[:] = False
    for pixel_loss in ("bce", "ce"):
        pixel, rmi, present, grad = run_triton(
            logits.float(), target, valid, RMIOptions(2, "avg", 4, pixel_loss, False), grad_rmi
        )
        assert (pixel == 0).all()
        assert not present.any()
        assert rmi.sub(functional.RMI_FLOOR).abs().max() < 1e-6
        assert (grad == 0).all()


@pytest.mark.parametrize("region_size", [1, 2, 3, pytest.param(4, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("size", [(0, 0), (1, 3), (7, 5), (30, 36)])
def test_regions(region_size, size, monkeypatch):
    """Maps that are all edge, and maps with inner bands; one pass over the maps, and several."""
    if DEVICE == "cpu" and (region_size - 1) * size[0] > (3 if region_size == 4 else 20):
        pytest.skip("slow in the interpreter")
    monkeypatch.setattr(triton_regions, "ROWS", 16)
    monkeypatch.setattr(triton_regions, "PASS_BYTES", 1 if size[0] == 7 else 1 << 25)
    alpha = 0.3 if size[0] == 7 else 5e-4
    generator = torch.Generator().manual_seed(0)
    shape = (1, 2, region_size + size[0], region_size + size[1])
    probabilities = torch.rand(shape, generator=generator).to(DEVICE)
    labels = (torch.rand(shape, generator=generator) > 0.5).float().to(DEVICE)
    labels[0, 1] = 0
    found = triton_regions.Regions.of(
        probabilities, labels, RMIOptions(region_size, "avg", 4, "bce", False, alpha), True
    )
    expected = regions.region_covariance(probabilities, labels, region_size)
    assert torch.allclose(found.covariance, expected, rtol=1e-12, atol=1e-11)
    assert torch.allclose(found.rmi, regions.rmi_of_covariance(expected, alpha), rtol=1e-10)
    assert torch.equal(found.present, labels.amax(dim=(2, 3)) > 0)
    grad = torch.empty_like(probabilities)
    found.write_gradient(grad)
    expected_grad = regions.region_gradient(probabilities, labels, regions.region_factor(expected, alpha), region_size)
    assert (grad - expected_grad).norm() <= 1e-6 * expected_grad.norm() + 1e-12


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("region_size", [1, 2, 3])
def test_regions_of_all_samples(region_size, passes, monkeypatch):
    """Covariances of each class, in one pass and in several; the last sample does not count."""
    monkeypatch.setattr(triton_regions, "PASS_BYTES", 1 if passes > 1 else 1 << 25)
    generator = torch.Generator().manual_seed(region_size)
    shape = (3, 2, region_size + 4, region_size + 2)
    probabilities = torch.rand(shape, generator=generator).to(DEVICE)
    labels = (torch.rand(shape, generator=generator) > 0.5).float().to(DEVICE)
    counted = torch.tensor([[True], [True], [False]], device=DEVICE)
    labels[2] = labels[:, 1] = labels[0, 0] = 0
    options = RMIOptions(region_size, "avg", 4, "bce", False, 0.01, batch=2)
    found = triton_regions.Regions.of(probabilities, labels, options, True, counted.double().repeat(1, 2))
    expected = regions.region_covariance(probabilities, labels, region_size, counted)
    assert torch.allclose(found.covariance, expected, rtol=1e-12, atol=1e-11)
    assert torch.allclose(found.rmi, regions.rmi_of_covariance(expected, 0.01), rtol=1e-10)
    assert found.present.tolist() == [[True, False]]
    grad = torch.empty_like(probabilities)
    found.write_gradient(grad)
    factor = regions.region_factor(expected, 0.01)
    expected_grad = regions.region_gradient(probabilities, labels, factor, region_size, counted)
    assert (grad[:2] - expected_grad[:2]).norm() <= 1e-6 * expected_grad.norm() + 1e-12


def test_kernels_compile_for_a_gpu_that_is_not_there():
    """In a process of its own: here, kernels may belong to the interpreter."""
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    script = Path(__file__).with_name("compile_triton.py")
    run = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    if "No module named" in run.stderr and "triton" in run.stderr.splitlines()[-1]:
        pytest.skip("this Triton has no compiler for CUDA")
    assert run.returncode == 0, run.stderr[-3000:]
    assert re.search(r"^compiled \d\d", run.stdout, re.MULTILINE)


needs_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")


def gpu_batch(shape, stride=1, dtype=torch.float32):
    n, c, h, w = shape
    generator = torch.Generator("cuda").manual_seed(0)
    blocks = torch.randint(0, c, (n, h // 8 + 1, w // 8 + 1), generator=generator, device="cuda")
    target = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :h, :w].contiguous()
    target[torch.rand(target.shape, generator=generator, device="cuda") < 0.02] = 255
    shape = (n, c, -(-h // stride), -(-w // stride))
    logits = 2 * torch.randn(shape, generator=generator, device="cuda", dtype=dtype)
    grad_rmi = torch.randn((n, c), generator=generator, device="cuda", dtype=torch.float64)
    return logits, target, (target >= 0) & (target < c), grad_rmi


@needs_gpu
@pytest.mark.parametrize("pixel_loss", ["bce", "ce"])
@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize(
    ("shape", "pool_size"), [((2, 21, 513, 513), 4), ((1, 19, 769, 769), 2), ((1, 60, 512, 512), 4)]
)
def test_real_sizes(shape, pool_size, stride, pixel_loss):
    logits, target, valid, grad_rmi = gpu_batch(shape, stride)
    options = RMIOptions(3, "avg", pool_size, pixel_loss, False)
    check(logits, target, valid, options, grad_rmi)
    first, second = (run_triton(logits, target, valid, options, grad_rmi) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))


@needs_gpu
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_more_elements_than_int32_counts(layout):
    shape = (1, 2200, 1024, 1024)
    if torch.cuda.get_device_properties(0).total_memory < 40e9:
        pytest.skip("needs 40 GB")
    logits, target, valid, grad_rmi = gpu_batch(shape, dtype=torch.bfloat16)
    logits = logits.contiguous(memory_format=layout)
    options = RMIOptions(3, "avg", 8, "bce", False)
    _, rmi, _, grad = run_triton(logits, target, valid, options, grad_rmi)
    # Classes do not meet in this loss: the last ones alone.
    expected = run_plain(logits[:, -2:].double(), target - (shape[1] - 2), valid, options, grad_rmi[:, -2:])
    assert torch.allclose(rmi[:, -2:], expected[1], rtol=1e-6)
    assert (grad[:, -2:] - expected[3]).norm() <= 5e-3 * expected[3].norm()


@needs_gpu
def test_low_resolution_takes_little_memory():
    shape = (16, 150, 512, 512)
    logits, target, valid, grad_rmi = gpu_batch(shape, stride=4)
    options = RMIOptions(3, "avg", 4, "bce", False)
    for _ in range(2):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        pixel, _, _, _, maps = kernels.rmi_forward(logits, target, valid, None, options, False, False)
        gradient = kernels.rmi_backward(pixel, grad_rmi, logits, target, valid, None, maps, options)
        extra = torch.cuda.max_memory_allocated() - before - gradient.nbytes
        del pixel, maps, gradient
    assert extra < 100e6
