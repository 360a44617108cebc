"""Augmentation keeps image and mask aligned, has the promised sizes and scales, and refuses impossible values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import tv_tensors

from rmiseg.config import DataConfig
from rmiseg.data import IGNORE_INDEX, eval_transform, normalize, train_transform
from rmiseg.data.transforms.pipeline import RandomScaleCrop, scale_crop


def gradient(height: int, width: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """An image that tells where each pixel was: red is the column, green the row, and the mask equals the column."""
    columns = torch.linspace(0, 200, width).round().to(torch.uint8).expand(height, width)
    rows = torch.linspace(0, 200, height).round().to(torch.uint8)[:, None].expand(height, width)
    # In memory (H, W, 3), as the reader gives it. (From memory (3, H, W), torch 2.15 cannot resize to a single pixel.)
    image = torch.stack([columns, rows, torch.full_like(rows, 50)], dim=-1).permute(2, 0, 1)
    return tv_tensors.Image(image), tv_tensors.Mask(columns.clone())


@settings(max_examples=60)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    crop=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    image_scale=st.sampled_from([0.3, 0.5, 1.0, 1.7]),
    step=st.sampled_from([0.0, 0.25]),
    seed=st.integers(0, 1000),
)
def test_any_size_gives_the_crop(height, width, crop, image_scale, step, seed):
    torch.manual_seed(seed)
    image, mask = gradient(height, width)
    out, out_mask = train_transform(crop, image_scale=image_scale, scale_step=step)(image, mask)
    assert out.shape == (3, *crop)
    assert out_mask.shape == crop
    assert out.dtype == out_mask.dtype == torch.uint8
    # No value is invented, and padding is where the image is gray.
    assert set(out_mask.unique().tolist()) <= {*mask.unique().tolist(), IGNORE_INDEX}
    padded = out_mask == IGNORE_INDEX
    assert (out[:, padded] == 128).all()
    assert (out[2, ~padded] == 50).all()


@pytest.mark.parametrize("image_scale", [0.5, 1.0, 2.0])
def test_image_and_mask_stay_aligned(image_scale):
    image, mask = gradient(120, 200)  # one column is one gray level
    for seed in range(30):
        torch.manual_seed(seed)
        out, out_mask = train_transform((64, 80), image_scale=image_scale)(image, mask)
        valid = out_mask != IGNORE_INDEX
        assert valid.any()
        error = (out[0].int() - out_mask.int())[valid].float()
        pixel = 1 / (0.5 * image_scale)  # a pixel at the smallest scale, in columns of the original
        assert error.abs().max() <= max(1.0, pixel)
        assert error.mean().abs() < 0.55  # "nearest" instead of "nearest exact" fails here


def test_image_and_mask_are_flipped_together():
    image, mask = gradient(20, 30)
    flipped, flipped_mask = train_transform((20, 30), scale_range=(1, 1), flip=1.0)(image, mask)
    assert torch.equal(flipped, image.flip(-1))
    assert torch.equal(flipped_mask, mask.flip(-1))
    same, same_mask = train_transform((20, 30), scale_range=(1, 1), flip=0.0)(image, mask)
    assert torch.equal(same, image)
    assert torch.equal(same_mask, mask)


def test_crop_without_scaling_is_a_piece_of_the_original():
    image, mask = gradient(50, 60)
    corners = set()
    for seed in range(40):
        torch.manual_seed(seed)
        out, out_mask = RandomScaleCrop((20, 25), scale_range=(1, 1))(image, mask)
        left, top = round(out[0, 0, 0].item() * 59 / 200), round(out[1, 0, 0].item() * 49 / 200)
        assert torch.equal(out, image[:, top : top + 20, left : left + 25])
        assert torch.equal(out_mask, mask[top : top + 20, left : left + 25])
        corners.add((top, left))
    assert len(corners) > 30


def test_padding_lies_at_either_side():
    image, mask = gradient(10, 10)
    tops = set()
    for seed in range(60):
        torch.manual_seed(seed)
        out, out_mask = RandomScaleCrop((14, 10), scale_range=(1, 1), fill=(1, 2, 3))(image, mask)
        top = int((out_mask[:, 0] != IGNORE_INDEX).int().argmax())
        tops.add(top)
        assert (out_mask == IGNORE_INDEX).sum() == 40
        assert out[:, out_mask == IGNORE_INDEX].unique(dim=1).flatten().tolist() == [1, 2, 3]
        assert torch.equal(out[:, top : top + 10], image)
    assert tops == {0, 1, 2, 3, 4}


def test_padding_of_the_paper():
    """The mean, all of it at the right and at the bottom."""
    image, mask = gradient(10, 8)
    config = DataConfig(
        crop_size=(14, 13),
        scale_range=(1, 1),
        flip=0,
        padding="end",
        image_mean=(116, 113.4, 104),
        image_std=(70, 70, 70),
    )
    for _ in range(10):
        out, out_mask = scale_crop(config)(image, mask)
        assert torch.equal(out[:, :10, :8], image)
        assert out[:, out_mask == IGNORE_INDEX].unique(dim=1).flatten().tolist() == [116, 113, 104]


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.5])
def test_bicubic_is_that_of_pillow(scale):
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).permute(2, 0, 1)
    size = round(scale * 40), round(scale * 60)
    transform = RandomScaleCrop(size, scale_range=(scale, scale), interpolation="bicubic")
    out = transform(tv_tensors.Image(pixels))
    witness = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling.BICUBIC)
    assert (out.permute(1, 2, 0).int() - torch.from_numpy(np.array(witness)).int()).abs().max() <= 1


def test_scales_are_those_of_range_and_step():
    transform = RandomScaleCrop((8, 8), scale_range=(0.5, 2.0), scale_step=0.25)
    assert {transform._draw_scale() for _ in range(300)} == {0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0}
    continuous = RandomScaleCrop((8, 8), scale_range=(0.75, 1.25), scale_step=0)
    scales = [continuous._draw_scale() for _ in range(300)]
    assert len(set(scales)) > 250
    assert 0.75 <= min(scales) < 0.8
    assert 1.2 < max(scales) <= 1.25


@pytest.mark.parametrize(("scale", "image_scale"), [(0.5, 1.0), (1.0, 0.5), (2.0, 1.0), (2.0, 0.25)])
def test_crop_shows_as_much_as_the_scale_says(scale, image_scale):
    image, mask = gradient(201, 201)
    out, _ = RandomScaleCrop((40, 40), image_scale=image_scale, scale_range=(scale, scale))(image, mask)
    seen = int(out[0].max()) - int(out[0].min()) + 1
    assert seen == pytest.approx(40 / (scale * image_scale), abs=2)


def test_color_jitter_changes_the_image_only():
    image, mask = gradient(20, 30)
    torch.manual_seed(0)
    out, out_mask = train_transform((20, 30), scale_range=(1, 1), flip=0, color_jitter=0.5)(image, mask)
    assert torch.equal(out_mask, mask)
    assert not torch.equal(out, image)
    assert out.dtype == torch.uint8


def test_evaluation_keeps_the_mask():
    image, mask = gradient(21, 30)
    out, out_mask = eval_transform(0.5)(image, mask)
    assert out.shape == (3, 10, 15)
    assert out.dtype == torch.uint8
    assert torch.equal(out_mask, mask)
    same, _ = eval_transform(1.0)(image, mask)
    assert torch.equal(same, image)


def test_normalize():
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    out = normalize(images, mean, std)
    expected = (images.numpy() / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"uint8.*float32"):
        normalize(out, mean, std)
    with pytest.raises(ValueError, match="std positive"):
        normalize(images, mean, (1, 0, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_size": (0, 8)}, r"crop_size.*\(0, 8\)"),
        ({"scale_range": (2.0, 0.5)}, r"scale_range.*\(2.0, 0.5\)"),
        ({"scale_range": (0.0, 1.0)}, "scale_range"),
        ({"scale_step": -0.25}, "scale_step -0.25"),
        ({"scale_step": 0.4}, "scale_step 0.4 does not lead from 0.5 to 2.0"),
        ({"image_scale": 0.0}, "image_scale.*0.0"),
        ({"image_scale": float("nan")}, "image_scale.*nan"),
        ({"flip": 1.5}, "flip.*1.5"),
        ({"color_jitter": -0.1}, "color_jitter.*-0.1"),
        ({"color_jitter": 2}, "color_jitter.*2"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        train_transform(**{"crop_size": (8, 8), **options})


def test_impossible_evaluation_scale():
    with pytest.raises(ValueError, match="image_scale"):
        eval_transform(-1)
