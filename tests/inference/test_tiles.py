"""Tiles, windows and strips against results that are made at full size, all at once."""

import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.transforms.v2 import functional

from rmiseg.config import TilingConfig
from rmiseg.data import normalize
from rmiseg.inference import segment as module
from rmiseg.inference.segment import argmax_logits, id_strips, interpolated_rows, probabilities, segment
from rmiseg.inference.tiles import plan_tiles, run_tiles
from rmiseg.kernels import native


class Striding(nn.Module):
    """Logits at stride 4 that depend on the place in the image only through its pixels."""

    image_mean, image_std = (0.5, 0.4, 0.3), (0.2, 0.2, 0.3)

    def __init__(self, classes=4):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, classes, 7, stride=4, padding=3)

    def forward(self, images):
        return self.layer(images)


def draw_image(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 4 + 2, width // 4 + 2, generator=generator)
    return (255 * F.interpolate(coarse, (height, width), mode="bilinear")[0]).to(torch.uint8)


def run(model, image, config, image_scale=1.0):
    tiles = plan_tiles(tuple(image.shape[1:]), config, image_scale)
    return list(run_tiles(model, lambda area: image[:, area.rows, area.columns], tiles))


sizes = {"h": st.integers(1, 9), "w": st.integers(1, 9), "height": st.integers(1, 40), "width": st.integers(1, 40)}


@given(
    **sizes,
    align_corners=st.booleans(),
    compiled=st.booleans(),
    channels_last=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    classes=st.integers(1, 6),
    seed=st.integers(0, 999),
)
def test_argmax_is_that_of_interpolated_logits(
    h, w, height, width, align_corners, compiled, channels_last, dtype, classes, seed
):
    logits = torch.randn(2, classes, h, w, generator=torch.Generator().manual_seed(seed)).to(dtype)
    if channels_last:
        logits = logits.to(memory_format=torch.channels_last)
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(native, "is_available", lambda: False)
        patch.setattr(module, "STRIP_ELEMENTS", 100)
        ids = argmax_logits(logits, (height, width), align_corners)
    full = F.interpolate(logits.double(), (height, width), mode="bilinear", align_corners=align_corners)
    chosen = full.gather(1, ids.long()[:, None])
    assert ids.dtype == torch.uint8
    assert (full.amax(1, keepdim=True) - chosen).max() < 1e-5


@given(**sizes, align_corners=st.booleans(), first=st.integers(0, 30), seed=st.integers(0, 999))
def test_interpolated_rows_are_those_of_the_whole(h, w, height, width, align_corners, first, seed):
    logits = torch.randn(3, h, w, generator=torch.Generator().manual_seed(seed))
    rows = slice(min(first, height - 1), height)
    whole = F.interpolate(logits[None], (height, width), mode="bilinear", align_corners=align_corners)[0]
    torch.testing.assert_close(
        interpolated_rows(logits, rows, (height, width), align_corners), whole[:, rows], atol=1e-5, rtol=1e-5
    )


def test_one_tile_is_the_plain_way():
    model, image = Striding(), draw_image(37, 50)
    outputs = run(model, image, TilingConfig())
    logits = model(normalize(image[None], model.image_mean, model.image_std))
    full = F.interpolate(logits, (37, 50), mode="bilinear", align_corners=True)[0]
    assert np.array_equal(segment(outputs, (37, 50), True), full.argmax(0).numpy())
    torch.testing.assert_close(probabilities(outputs, (37, 50), True), full.softmax(0))


@pytest.mark.parametrize("image_scale", [1.0, 0.5])
def test_scales_and_flips_are_averaged(image_scale):
    model, image, size = Striding(), draw_image(40, 56), (40, 56)
    scales = [0.5, 1.0, 1.5]
    expected = torch.zeros(4, *size)
    for scale in scales:
        shape = [round(side * scale * image_scale) for side in size]
        resized = functional.resize(image, shape, antialias=True)
        for flip in (False, True):
            shown = resized.flip(-1) if flip else resized
            logits = model(normalize(shown[None], model.image_mean, model.image_std))
            logits = logits.flip(-1) if flip else logits
            expected += F.interpolate(logits, size, mode="bilinear", align_corners=False)[0].softmax(0) / 6
    outputs = run(model, image, TilingConfig(scales=scales, flip=True), image_scale)
    torch.testing.assert_close(probabilities(outputs, size, False), expected, atol=1e-5, rtol=1e-4)
    assert np.array_equal(segment(outputs, size, False), expected.argmax(0).numpy())


@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    window=st.integers(4, 40),
    overlap=st.sampled_from([0.0, 0.25, 1 / 3, 0.5]),
    scale=st.sampled_from([0.5, 1.0, 2.0]),
    flip=st.booleans(),
)
def test_windows_cover_every_pixel_with_weights_that_add_up_to_one(height, width, window, overlap, scale, flip):
    config = TilingConfig(scales=[scale, 1.0], flip=flip, window=window, overlap=overlap)
    total = torch.zeros(height, width)
    tops = []
    for tile in plan_tiles((height, width), config):
        area = tile.area
        assert area.rows.stop <= height
        assert area.columns.stop <= width
        assert max(tile.size) <= max(window, 1)
        total[area.rows, area.columns] += tile.row_weights[:, None] * tile.column_weights
        tops.append(area.top)
    torch.testing.assert_close(total, torch.ones_like(total))
    assert tops == sorted(tops)


def test_windows_blend_and_are_written_in_strips(monkeypatch):
    """The strips are those of all windows' probabilities, weighted and added at full size."""
    model, image, size = Striding(), draw_image(70, 90), (70, 90)
    config = TilingConfig(window=32, overlap=0.25, flip=True)
    tiles = plan_tiles(size, config)
    expected = torch.zeros(4, *size)
    for tile in tiles:
        shown = image[:, tile.area.rows, tile.area.columns]
        logits = model(normalize((shown.flip(-1) if tile.flip else shown)[None], model.image_mean, model.image_std))
        logits = logits.flip(-1) if tile.flip else logits
        share = F.interpolate(logits, tile.area[2:], mode="bilinear", align_corners=False)[0].softmax(0)
        expected[:, tile.area.rows, tile.area.columns] += share * tile.row_weights[:, None] * tile.column_weights
    monkeypatch.setattr(module, "STRIP_ELEMENTS", 4 * 90 * 5)
    strips = list(id_strips(iter(run(model, image, config)), size, False))
    assert max(map(len, strips)) == 5
    top_two = expected.topk(2, dim=0).values
    sure = (top_two[0] - top_two[1] > 1e-5).numpy()
    assert sure.mean() > 0.99
    assert np.array_equal(np.concatenate(strips)[sure], expected.argmax(0).numpy()[sure])


def test_only_two_rows_of_windows_are_held():
    """What is held while an image is segmented does not grow with its height."""
    alive, most = 0, 0

    model, image = Striding(), draw_image(400, 40)

    def counted():
        nonlocal alive, most
        tiles = plan_tiles((400, 40), TilingConfig(window=20, overlap=0.25))
        for output in run_tiles(model, lambda area: image[:, area.rows, area.columns], tiles):
            alive += 1
            most = max(most, alive)

            def gone():
                nonlocal alive
                alive -= 1

            weakref.finalize(output.logits, gone)
            yield output
            del output

    rows = sum(len(strip) for strip in id_strips(counted(), (400, 40), False))
    assert rows == 400
    assert len(plan_tiles((400, 40), TilingConfig(window=20, overlap=0.25))) > 60
    assert most <= 3 * 3  # the tiles of one row of windows are three


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": []}, "scales"),
        ({"scales": [0.0]}, "scales must be positive factors, not \\[0.0\\]"),
        ({"window": 0}, "window must be"),
        ({"overlap": 0.6}, "overlap must be a share from 0 to 0.5"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        plan_tiles((10, 10), TilingConfig(**options))
