"""The ways in which PyTorch calls a loss: compiled, captured, scaled, on other streams, without waiting."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gpu.batches import Case, Place
from rmiseg import RMILoss


def measure(place: Place) -> Iterator[tuple[str, Any]]:
    """For each mode "ok", or what went wrong."""
    checks: list[Callable[[Place], None]] = [deterministic, any_batch_size, compiled]
    if place.device == "cuda":
        checks += [never_waits, other_stream, captured, scaled, under_autocast, not_finite, other_dialects_never_wait]
        checks += [beyond_int32]
    for check in checks:
        try:
            check(place)
            yield check.__name__, "ok"
        except Exception:
            yield check.__name__, traceback.format_exc()[-2500:]


def _case(place: Place, stride: int = 1, dtype: str = "float32") -> Case:
    return Case((1, 2, 20, 20) if place.tiny else (4, 21, 257, 257), stride, dtype)


def _step(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    value = loss(logits, target)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


def _loss(place: Place, logits: Tensor, **options: Any) -> RMILoss:
    smaller = {"region_size": 1} if place.tiny else {}
    loss = RMILoss(logits.shape[1], implementation=place.implementation, **{**smaller, **options})
    return loss.to(place.device)


def _equal(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b), f"differs by {(a - b).abs().max().item()}"


def deterministic(place: Place) -> None:
    for stride in (1,) if place.tiny else (1, 4):
        logits, target = _case(place, stride).batch(place.device)
        loss = _loss(place, logits)
        first = _step(loss, logits, target)
        for _ in range(1 if place.tiny else 20):
            _equal(_step(loss, logits, target), first)


def any_batch_size(place: Place) -> None:
    """A batch of one, and of none that is valid."""
    logits, target = _case(place).batch(place.device)
    loss = _loss(place, logits)
    _step(loss, logits[:1], target[:1])
    value, gradient = _step(loss, logits[:1], torch.full_like(target[:1], 255))
    assert value == 0
    assert gradient.count_nonzero() == 0


def compiled(place: Place) -> None:
    logits, target = _case(place, 4).batch(place.device)
    loss = _loss(place, logits)
    found, expected = _step(torch.compile(loss, fullgraph=True), logits, target), _step(loss, logits, target)
    # What is around the kernels may be rounded otherwise.
    torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=0)
    assert (found[1] - expected[1]).norm() <= 1e-6 * expected[1].norm()


def never_waits(place: Place) -> None:
    """No function of the loss makes the host wait for the device."""
    for stride, options in ((1, {}), (4, {}), (1, {"pixel_loss": "ce"}), (1, {"pool": "max"}), (1, {"region_size": 5})):
        logits, target = _case(place, stride).batch("cuda")
        loss = _loss(place, logits, **options)
        _step(loss, logits, target)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            _step(loss, logits, target)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def other_dialects_never_wait(place: Place) -> None:
    """Class weights, ignored labels as a list, masks, soft targets."""
    logits, target = _case(place).batch("cuda")
    soft = torch.nn.functional.one_hot(target.clamp(max=20), 21).movedim(-1, 1).float()
    calls: list[tuple[dict[str, Any], Tensor]] = [
        ({"class_weights": [1.0] * 21}, target),
        ({"ignore_index": [255, 3]}, target),
        ({"implementation": "auto"}, soft),
    ]
    for options, wanted in calls:
        loss = RMILoss(21, **options).cuda()
        _step(loss, logits, wanted)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            _step(loss, logits, wanted)
        except Exception as error:
            raise AssertionError(f"{list(options)}: {error}") from error
        finally:
            torch.cuda.set_sync_debug_mode("default")


def other_stream(place: Place) -> None:
    """On a stream beside a busy one, with nothing but its own events to wait for."""
    logits, target = _case(place).batch("cuda")
    loss = _loss(place, logits)
    expected = _step(loss, logits, target)
    busy = torch.randn(4096, 4096, device="cuda")
    for _ in range(20):
        busy = busy @ busy / 64
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        found = _step(loss, logits, target)
    stream.synchronize()
    _equal(found, expected)


def captured(place: Place) -> None:
    """In a CUDA graph, replayed with other values."""
    for stride in (1, 4):
        logits, target = _case(place, stride).batch("cuda")
        loss = _loss(place, logits)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                _step(loss, logits, target)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = _step(loss, logits, target)
        with torch.no_grad():
            logits.mul_(-0.5)
        graph.replay()
        torch.cuda.synchronize()
        _equal(found, _step(loss, logits, target))


def scaled(place: Place) -> None:
    """With a gradient scaler, which skips the step where a logit is not finite."""
    _, target = _case(place).batch("cuda")
    layer = nn.Conv2d(3, 21, 1).cuda()
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cuda", init_scale=1024.0)
    loss = _loss(place, target.new_empty(1, 21))
    for bad in (False, True):
        before = layer.weight.detach().clone()
        images = torch.randn(4, 3, 257, 257, device="cuda")
        if bad:
            images[0, 0, 0, 0] = torch.inf
        with torch.autocast("cuda", torch.float16):
            value = loss(layer(images), target)
        optimizer.zero_grad()
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(before, layer.weight) is bad
    assert scaler.get_scale() == 512.0


def under_autocast(place: Place) -> None:
    """The same inside of autocast and out of it."""
    for dtype in ("float32", "bfloat16", "float16"):
        logits, target = _case(place, 4, dtype).batch("cuda")
        loss = _loss(place, logits)
        expected = _step(loss, logits, target)
        with torch.autocast("cuda", torch.bfloat16):
            found = _step(loss, logits, target)
        _equal(found, expected)


def not_finite(place: Place) -> None:
    """A loss that is not finite where a logit is not, and a label that is no class makes it NaN, without an error."""
    for stride in (1, 4):
        logits, target = _case(place, stride).batch("cuda")
        loss = _loss(place, logits)
        for value in (torch.nan, torch.inf, -torch.inf):
            with torch.no_grad():
                bad = logits.detach().clone()
                bad[0, 0] = value
            found, gradient = _step(loss, bad.requires_grad_(), target)
            assert not found.isfinite(), value
            assert not gradient.isfinite().all(), value
        wrong = target.clone()
        wrong[0, 0, 0] = 77
        assert _step(loss, logits, wrong)[0].isnan()


def beyond_int32(place: Place) -> None:
    """More elements than 2^31: the loss of the last sample as if it were alone."""
    if torch.cuda.get_device_properties(0).total_memory < 60e9:
        return
    logits, target = Case((9, 250, 1024, 1024), 1, "bfloat16").batch("cuda")
    loss = _loss(place, logits, reduction="none", pool_size=8)
    value = loss(logits, target)
    value.sum().backward()
    alone = logits.detach()[-1:].clone().requires_grad_()
    expected = loss(alone, target[-1:])
    expected.sum().backward()
    assert logits.grad is not None
    assert alone.grad is not None
    _equal((value[-1:], logits.grad[-1:]), (expected, alone.grad))
