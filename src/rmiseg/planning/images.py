"""Rules on images, crops and RMI's regions. Each is a pure function of facts; `docs/planning.md` has the evidence."""

from __future__ import annotations

from rmiseg.planning.decisions import Decision
from rmiseg.planning.profile import ClassProfile, DataProfile

LONGEST = 2048
"""Longest side of the images that the network is shown whole."""
NARROW, FINE = 4.0, 3.0
"""Widths in pixels below which a line is narrower than a cell of the network's logits, which have stride 4, and below
which little of it is found, so that one class is reason enough to make images larger."""
LINE = 5.0
"""Width in pixels below which parts are lines, of which little is left when they are pooled by 4."""
THIN_SHARE, LINE_SHARE = 1 / 3, 1 / 2
"""Shares of the classes, but for the most frequent one, that must be narrow for images to be made larger (the mean over
classes gains by those alone, and all of the training pays), and that must be lines for the network to be another."""
MOST_ENLARGED = 2.0
SMALLEST_CROP, CROP_STEP = 32, 32
CROPS = {"cpu": 256, "cuda": 512}
"""Longest side of a crop by device."""
HURRIED_CROP = 192
"""Longest side of a crop in a training that is short of time."""
PART, RARE = 0.8, 0.05
"""Share of an image that a crop shows, and of the pixels that a class has, below which crops look for rare classes."""
SELDOM = 1 / 3
"""Share of the images that show a rare class below which crops look for it even where they show whole images, and
below which RMI does not find it in time."""
GROUND = 0.8
"""Share of the most frequent class from which on cross entropy takes the place of RMI if a class is seldom."""
VARIED = 2000
"""Number of images from which on their colors vary by themselves."""
UPRIGHT = 0.02
"""Share of the pixels by which upper and lower halves of images differ, above which images have an upper side."""


def image_scale(profile: DataProfile, full_size: bool = False, hurried: bool = False) -> Decision:
    """Factor of images: smaller if they are too large to be shown whole, larger if something in them is thin.

    Images are scored whole, so that their size is bounded by memory. What is narrower than the stride of the logits is
    drawn by fewer than one of them a side.

    Args:
        profile: Facts of the data.
        full_size: Whether the network has a logit for each pixel, so that nothing is narrower than its stride.
        hurried: Whether there is no time for as many of the usual steps as it takes to learn.
    """
    longest = max(profile.largest)
    if longest > LONGEST:
        factor = float(f"{LONGEST / longest:.2g}")
        return Decision(
            "data.image_scale",
            factor,
            f"the largest image has {longest} pixels on a side, and images are scored whole; so they have "
            f"{round(longest * factor)}. {_lost(profile.thinnest, factor)}",
        )
    thin = narrow_classes(profile, 1.0) or ([] if hurried else narrow_classes(profile, 1.0, FINE, share=0))
    if thin and not full_size:
        wanted = round(2 * NARROW / max(thin[0].width, 0.1)) / 2
        factor = int(2 * min(MOST_ENLARGED, LONGEST / longest, wanted)) / 2
        if factor > 1:
            return Decision(
                "data.image_scale",
                factor,
                f"parts of {_named(thin)} are {thin[0].width:.1f} pixels wide, less than the network's stride of "
                f"{NARROW:.0f}",
            )
    return Decision("data.image_scale", 1.0, f"images of {profile.size[0]} x {profile.size[1]} are shown as they are")


def crop_size(profile: DataProfile, scale: float, device: str, hurried: bool = False) -> Decision:
    """Size of crops: that of the images, so that little of a crop is padding, up to what the device computes soon.

    Of larger images crops are larger, so that they show as much.

    Args:
        profile: Facts of the data.
        scale: Factor of images.
        device: Kind of the device.
        hurried: Whether there is no time for as many of the usual steps as it takes to learn.
    """
    usual = round(CROPS.get(device, CROPS["cuda"]) * max(scale, 1))
    most = HURRIED_CROP if hurried else usual
    sides = [round(side * scale) for side in profile.size]
    crop = tuple(max(SMALLEST_CROP, min(most, side) // CROP_STEP * CROP_STEP) for side in sides)
    if most < usual and max(sides) > most:
        reason = f"smaller than the usual {usual}, so that there is time for more steps"
    elif min(sides) < SMALLEST_CROP:
        reason = f"the smallest crop, of images of {sides[0]} x {sides[1]} in the median"
    elif max(sides) <= most:
        reason = f"the images as they are, {sides[0]} x {sides[1]} in the median, so that nothing of a crop is padding"
    else:
        kind = "CPU" if device == "cpu" else "GPU"
        reason = f"a part of the images of {sides[0]} x {sides[1]}: as much as a {kind} learns from in good time"
    return Decision("data.crop_size", crop, reason)


def scales(profile: DataProfile) -> list[Decision]:
    """Random scales: objects of a half more and a quarter less than their size, drawn continuously."""
    return [
        Decision(
            "data.scale_range", (0.75, 1.5), "at 0.5, the paper's for photographs, half of such a crop is padding"
        ),
        Decision("data.scale_step", 0.0, "any scale between, not every quarter"),
    ]


def rare_share(profile: DataProfile, scale: float, crop: tuple[int, int]) -> Decision:
    """Share of crops centred on a rare class: a half, where a crop shows a part or few images show a class.

    Args:
        profile: Facts of the data.
        scale: Factor of images.
        crop: Height and width of crops.
    """
    height, width = (side * scale for side in profile.size)
    part = min(crop[0] / height, 1) * min(crop[1] / width, 1)
    rare = [each for each in profile.shown if each.share < RARE]
    if not rare:
        return Decision("data.rare_share", 0.0, f"no class has less than {RARE:.0%} of the pixels")
    rarest, fewest = profile.rarest, min(rare, key=lambda each: each.images)
    if part < PART:
        reason = f"a crop shows {part:.0%} of an image, and {rarest.name} has {rarest.share:.2%} of the pixels"
    elif fewest.images < SELDOM * profile.masks:
        reason = f"{fewest.name} is in {fewest.images} of {profile.masks} masks, and would be seen seldom"
    else:
        return Decision("data.rare_share", 0.0, f"a crop shows {part:.0%} of an image, and most images every class")
    return Decision("data.rare_share", 0.5, reason)


def color_jitter(profile: DataProfile) -> Decision:
    """Strength of random colors: 0.3 for few images, whose light says more of them than of what they show."""
    if profile.images < VARIED:
        return Decision("data.color_jitter", 0.3, f"{profile.images} images have not all the light there is")
    return Decision("data.color_jitter", 0.0, f"{profile.images} images vary by themselves, and it costs time")


def augment(profile: DataProfile) -> list[Decision]:
    """Crops upside down and turned, where few images look alike from above and below; else nothing is decided."""
    if profile.images >= VARIED or profile.upright > UPRIGHT:
        return []
    reason = f"classes are above as often as below ({profile.upright:.1%} of the pixels differ), and images are few"
    return [Decision("data.augment", {"flip-vertical": {}, "rotate": {"degrees": 180}}, reason)]


def pool_size(profile: DataProfile, scale: float) -> Decision:
    """Downsampling before RMI's regions: 4 as in the paper, 2 where something is narrower than that."""
    if thin := narrow_classes(profile, scale, LINE):
        width = thin[0].width * scale
        return Decision(
            "loss.rmi.pool_size", 2, f"pooled by 4, parts of {_named(thin)} of {width:.1f} pixels would be gone"
        )
    return Decision("loss.rmi.pool_size", 4, "the paper's; few classes or none are narrower than that")


def loss(profile: DataProfile) -> list[Decision]:
    """The loss: RMI and Dice where a third of the masks show every class; if not, cross entropy and Dice where nearly
    all is ground; else nothing is decided.

    Of a class that a crop does not show RMI says nothing, and the binary cross entropy beside it finds late what few
    images show (docs/results.md). Dice looks at the pixels of a class in all crops together, and so does RMI with one
    covariance for the batch.
    """
    ground = max(profile.shown, key=lambda each: each.share)
    others = [each for each in profile.shown if each is not ground]
    if not others:
        return []
    fewest = min(others, key=lambda each: each.images)
    if fewest.images >= SELDOM * profile.masks:
        reason = f"each class is in a third of the masks or more, and what is not {ground.name} is found sooner with it"
        together = Decision("loss.rmi.covariance", "batch", "crops that do not show a class have a gradient too")
        return [Decision("loss.plus", {"dice": 1.0}, reason), together]
    if ground.share < GROUND:
        return []
    reason = f"{fewest.name} is in {fewest.images} of {profile.masks} masks: RMI would find it late"
    dice = Decision("loss.plus", {"dice": 1.0}, f"what is not {ground.name} is found sooner with it")
    return [Decision("loss.name", "ce", reason), dice]


def lines(profile: DataProfile) -> list[ClassProfile]:
    """Classes whose parts are lines, the narrowest first; none if they are fewer than half of all."""
    return narrow_classes(profile, 1.0, LINE, LINE_SHARE)


def narrow_classes(
    profile: DataProfile, scale: float, width: float = NARROW, share: float = THIN_SHARE
) -> list[ClassProfile]:
    """Classes narrower than the stride of the logits, the narrowest first; none if they are few of all.

    Args:
        profile: Facts of the data.
        scale: Factor of images.
        width: Width in pixels.
        share: Share of all classes but the most frequent one, of which fewer are few.
    """
    ground = max(profile.shown, key=lambda each: each.share)
    others = [each for each in profile.shown if each is not ground]
    thin = sorted((each for each in others if each.width * scale < width), key=lambda each: each.width)
    return thin if len(thin) >= share * len(others) else []


def _named(classes: list[ClassProfile]) -> str:
    return f"{classes[0].name} and {len(classes) - 1} more" if classes[1:] else classes[0].name


def _lost(thin: ClassProfile, factor: float) -> str:
    width = thin.width * factor
    if width >= 1:
        return "data.image_scale 1 with rmiseg evaluate --window shows all of them"
    return f"Parts of {thin.name}, {thin.width:.1f} pixels wide, are lost: cut the images into tiles to find them"
