"""Rules on batches, steps and learning rates. Each is a pure function of facts; `docs/planning.md` has the evidence."""

from __future__ import annotations

import math

from rmiseg.planning.decisions import Decision
from rmiseg.planning.machine import GIGABYTE, Machine
from rmiseg.planning.memory import MemoryNeed
from rmiseg.planning.network import is_light
from rmiseg.runtime.words import counted

BATCHES = {"cpu": 4, "cuda": 16}
SMALLEST_BATCH = 2
"""Batch norm needs two: behind the pooling over whole images there is one value of each."""
EPOCH_STEPS = 50
"""Steps that an epoch should have: after each, a state is saved."""
EPOCHS = 50
STEPS = {"cpu": (1500, 6000), "cuda": (4000, 80_000)}
"""Fewest and most steps by device."""
VALIDATIONS, VALIDATION_SHARE = 20, 0.15
"""Evaluations of a training, and the share of its time that they may take."""
BACKWARD = 3
"""Times that a training step takes as long as the forward pass alone."""
WARMUP_SHARE = 0.1
NORM_MOMENTA = (0.05, 0.3)
LEFT_OVER = 0.01
"""Weight that batch norm's first statistics may have left after a tenth of the training."""
REMEMBERED = 6
"""Part of the training, a sixth, whose weights the moving average remembers."""
LEARNING_RATES = {"sgd": {"light": 0.05, "heavy": 0.01}, "adamw": {"light": 7e-4, "heavy": 1e-4}}
"""Learning rates at batches of 8 by optimizer, of light backbones (MobileNets, EfficientNets) and of others."""


def batch_size(images: int, machine: Machine, need: MemoryNeed | None) -> list[Decision]:
    """Images in a batch, and batches whose gradients add up to a step.

    Args:
        images: Number of images to train on.
        machine: The machine.
        need: Memory that a step needs; None if that is not known.
    """
    batch = BATCHES.get(machine.device, BATCHES["cuda"])
    reason = "usual for a GPU" if machine.has_gpu else "few, so that a CPU has time for many steps"
    if images < batch:
        batch = max(SMALLEST_BATCH, images // 2 * 2)
        reason = f"there are {images} images" if images > 1 else "there is one image, of which a batch has two crops"
    wanted, fitting = batch, batch
    if need is not None and machine.usable:
        share = 1 / machine.processes
        while fitting > SMALLEST_BATCH and need.of(fitting * share) > machine.usable:
            fitting //= 2
        if fitting < batch:
            all_, part = (need.of(images * share) / GIGABYTE for images in (batch, fitting))
            reason = f"{batch} images need {all_:.1f} GB and {fitting} {part:.1f}, of {machine.memory / GIGABYTE:.0f}"
        batch = fitting
    if batch % machine.processes:
        batch = machine.processes * math.ceil(batch / machine.processes)
        reason += f", in {machine.processes} processes"
    accumulate = max(1, wanted // batch)
    because = f"{wanted} images a step" if accumulate > 1 else "one batch a step"
    return [Decision("data.batch_size", batch, reason), Decision("train.accumulate", accumulate, because)]


def repeat(images: int, batch: int, accumulate: int) -> Decision:
    """Passes over the images in an epoch, so that it has about `EPOCH_STEPS` steps.

    Args:
        images: Number of images to train on.
        batch: Images in a batch.
        accumulate: Batches in a step.
    """
    step = batch * accumulate
    times = max(1, round(EPOCH_STEPS * step / images), math.ceil(step / images))
    if times == 1:
        return Decision("data.repeat", 1, f"{images // step} steps are an epoch")
    return Decision("data.repeat", times, f"{images} images alone would be {images // step} steps an epoch")


def steps(images: int, step_images: int, device: str, scale: float = 1.0) -> Decision:
    """Optimizer steps: 50 passes over the images, within bounds.

    In larger images, whose crops are larger, the most are fewer, and take as much time.

    Args:
        images: Number of images to train on.
        step_images: Images in a step.
        device: Kind of the device.
        scale: Factor of images.
    """
    fewest, most = STEPS.get(device, STEPS["cuda"])
    most = round(most / max(scale, 1) ** 2)
    wanted = math.ceil(EPOCHS * images / step_images)
    count = min(max(wanted, fewest), most)
    passes = count * step_images / images
    if wanted < fewest:
        reason = f"{EPOCHS} passes over {images} images would be {wanted}, too few to learn from: {passes:.0f} passes"
    elif wanted > most:
        reason = f"{EPOCHS} passes over {images} images would be {wanted}: {passes:.1f} passes. More is better"
    else:
        reason = f"{EPOCHS} passes over {images} images"
    if count == most and scale > 1:
        reason += f"; in images {scale:g} times as large steps are fewer, as each takes longer"
    return Decision("train.steps", count, reason)


def val_every(total: int, epoch_steps: int, train_pixels: float, val_pixels: float) -> Decision:
    """Epochs between evaluations: about `VALIDATIONS` in all, fewer where they would take too much of the time.

    Args:
        total: Optimizer steps.
        epoch_steps: Steps of an epoch.
        train_pixels: Pixels of a step.
        val_pixels: Pixels of all images to score on.
    """
    affordable = VALIDATION_SHARE * total * train_pixels * BACKWARD / max(val_pixels, 1)
    wanted = max(1, min(VALIDATIONS, int(affordable)))
    epochs = math.ceil(total / epoch_steps)
    every = max(1, math.ceil(epochs / wanted))
    share = f" in {VALIDATION_SHARE:.0%} of the time" if wanted < VALIDATIONS else ""
    return Decision("train.val_every", every, f"{counted(math.ceil(epochs / every), 'evaluation')}{share}")


def is_hurried(count: int, device: str, scale: float = 1.0) -> bool:
    """Tell whether there is time for fewer steps than it takes to learn; of GPUs nothing is known.

    Args:
        count: Steps that there is time for.
        device: Kind of the device.
        scale: Factor of images.
    """
    return device == "cpu" and count * max(scale, 1) ** 2 < STEPS["cpu"][0]


def norm_momentum(total: int) -> Decision:
    """Momentum of batch norm's running statistics, by which they forget those of the initial weights in a tenth of the
    training.

    Args:
        total: Optimizer steps.
    """
    low, high = NORM_MOMENTA
    wanted = 1 - LEFT_OVER ** (10 / total)
    value = float(f"{min(max(wanted, low), high):.2g}")
    reason = (
        "the paper's" if value == low else f"in {total} steps the paper's {low:g} would keep what batch norm began with"
    )
    return Decision("train.norm_momentum", value, reason)


def average(total: int) -> list[Decision]:
    """Decay of a moving average of the weights, which is scored in place of the last ones, in short trainings: their
    norms have little memory, so that their statistics change from step to step. In others it gains nothing.

    Args:
        total: Optimizer steps.
    """
    if total <= REMEMBERED or norm_momentum(total).value == NORM_MOMENTA[0]:
        return []
    decay = float(f"{1 - REMEMBERED / total:.2g}")
    reason = f"the mean of about the last {math.ceil(total / REMEMBERED)} steps is better than any one of so few"
    return [Decision("train.ema", decay, reason)]


def optimizer(backbone: str | None) -> list[Decision]:
    """The optimizer: AdamW for light backbones; else there is nothing to decide.

    Args:
        backbone: Name of the backbone; None if there is none.
    """
    if not is_light(backbone):
        return []
    return [Decision("optim.name", "adamw", "light backbones learned more with it than with SGD")]


def learning_rate(optimizer: str, backbone: str | None, step_images: int, total: int) -> list[Decision]:
    """Learning rate by optimizer, backbone and images in a step, and its warmup.

    In proportion to the root of the images in a step, which is between what small and large batches ask for.

    Args:
        optimizer: sgd or adamw.
        backbone: Name of the backbone; None if there is none.
        step_images: Images in a step.
        total: Optimizer steps.
    """
    kind = "light" if is_light(backbone) else "heavy"
    usual = LEARNING_RATES[optimizer][kind]
    rate = float(f"{usual * math.sqrt(step_images / 8):.2g}")
    reason = f"{usual:g} for {optimizer} and {'light' if kind == 'light' else 'large'} backbones at 8 images a step"
    warmup = min(int(WARMUP_SHARE * total), 1500)
    return [
        Decision("optim.lr", rate, f"{reason}, and by the root of {step_images}"),
        Decision("optim.warmup_steps", warmup, f"a tenth of {total} steps, at most 1500 as in the paper"),
    ]
