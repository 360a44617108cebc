"""Targets read in one pass are those that ordinary operations read."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rmiseg import RMILoss
from rmiseg.kernels import backends, native
from rmiseg.losses.inputs import InputReader

WHOLE = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
DRAWN = [0.0, 1.0, 2.0, 3.0, 5.0, 100.0, 255.0, -1.0, -100.0, 0.25, 0.5, float("nan"), float("inf")]

pytestmark = pytest.mark.skipif(not native.is_available(), reason="installed without a C++ compiler")


@given(
    mode=st.sampled_from(["multiclass", "binary", "multilabel"]),
    dtype=st.sampled_from(WHOLE + FLOATS),
    ignored=st.sampled_from([None, 255, -100, (100, -1), (1,), 0]),
    size=st.lists(st.integers(1, 9), min_size=2, max_size=3),
    values=st.lists(st.sampled_from(DRAWN), min_size=1, max_size=4),
    seed=st.integers(0, 2**16),
)
def test_every_kind_of_target(mode, dtype, ignored, size, values, seed):
    classes = 1 if mode == "binary" else 4
    is_maps = mode == "multilabel" or (mode == "multiclass" and dtype in FLOATS)
    if dtype not in FLOATS:
        values = [each for each in values if float(each).is_integer() and abs(each) <= 100] or [1.0]
    chosen = torch.randint(len(values), (2, *([classes] if is_maps else []), *size), generator=torch.manual_seed(seed))
    target = torch.tensor(values, dtype=torch.float64)[chosen].to(dtype)
    reader = InputReader("Loss", classes, ignored, mode, True, None)
    found = reader.read_target(target, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "fastest", lambda device: "chunked")
        expected = reader.read_target(target, None)
    for name in ("valid", "counts", "unknown", "samples"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    if found.is_soft == expected.is_soft:
        kept = found.valid.unsqueeze(1).expand_as(found.values) if found.is_soft else found.valid
        assert torch.equal(found.values[kept], expected.values[kept])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.uint16])
def test_ids_of_any_dtype_are_not_changed(dtype):
    logits = torch.randn(2, 3, 16, 16, generator=torch.manual_seed(0))
    target = torch.randint(0, 3, (2, 16, 16), generator=torch.manual_seed(1))
    given = target.to(dtype)
    assert torch.equal(RMILoss(3)(logits, given), RMILoss(3)(logits, target))
    assert torch.equal(given.long(), target)


def test_masks_in_any_layout():
    logits = torch.randn(2, 3, 16, 20, generator=torch.manual_seed(0))
    masks = torch.rand(2, 3, 16, 20, generator=torch.manual_seed(1))
    for each in (masks, masks > 0.5):
        strange = each.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        loss = RMILoss(3, mode="multilabel", pool_size=2)
        assert torch.equal(loss(logits, strange), loss(logits, each))


@pytest.mark.parametrize(
    ("mode", "target", "message"),
    [
        ("multiclass", torch.full((1, 16, 16), 7.0), "target holds 7.0 in 256 pixels, .*; labels must be 0 to 2"),
        ("multilabel", torch.full((1, 3, 16, 16), 7), "target holds 7 in 768 pixels, .*; labels must be 0 to 1"),
        ("multilabel", torch.full((1, 3, 16, 16), 7.0), "target holds 7.0 in 768 pixels, .*; probabilities must be"),
    ],
)
def test_the_complaint_fits_the_target(mode, target, message):
    with pytest.raises(ValueError, match=message):
        RMILoss(3, mode=mode, pool_size=2)(torch.zeros(1, 3, 16, 16), target)
