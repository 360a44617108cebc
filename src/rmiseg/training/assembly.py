"""Options of a training as objects: data sets, network, optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from torch import nn
from torchvision.transforms.v2 import Compose

from rmiseg.config import DataConfig, LossConfig, TrainConfig
from rmiseg.config.parser import check_choices, checked_options, chosen_components
from rmiseg.config.ranges import check_ranges
from rmiseg.config.registry import GIVEN, OWN_OPTIONS, find, loaded_plugins
from rmiseg.data import (
    LabeledImages,
    SegmentationDataset,
    Split,
    TrainLoader,
    adapt_transform,
    balanced_weights,
    eval_loader,
    eval_transform,
    open_training_data,
    train_loader,
)
from rmiseg.data.bands import Bands
from rmiseg.data.loader import Loader
from rmiseg.data.transforms.mixing import Mixing
from rmiseg.data.transforms.pipeline import TrainTransform
from rmiseg.data.transforms.rare import find_places
from rmiseg.models import (
    DEFAULT_BACKBONE,
    adapt_model,
    build_model,
    set_norm_momentum,
    takes_backbone,
    usual_stride,
)
from rmiseg.models.base import SegmentationModel
from rmiseg.models.layers import synchronize_norm
from rmiseg.models.original import OWN_CRITERION, check_original
from rmiseg.runtime.cores import worker_count
from rmiseg.runtime.distributed import distribute, on_main, rank, world_size
from rmiseg.training.criterion import Criterion
from rmiseg.training.initial import initialize
from rmiseg.training.optim import HEAD_LR_FACTORS, build_optimizer
from rmiseg.training.parts import Parts
from rmiseg.training.run_folder import BALANCED, RunFolder
from rmiseg.training.step import TrainStep

C = TypeVar("C", bound=TrainConfig)


def open_splits(data: DataConfig, console: Console | None = None) -> tuple[Split, Split]:
    """The images to train and to score on.

    Args:
        data: The options of the data.
        console: Where to say what was decided; by default nowhere.

    Raises:
        ValueError, FileNotFoundError: As `rmiseg.data.open_training_data`.
    """
    return open_training_data(
        data.name,
        data.root,
        (data.train_split, data.val_split),
        options=data.options,
        bands=data.bands,
        value_range=data.value_range,
        picture=data.picture,
        held_out=data.held_out,
        on_error=data.on_error,
        console=console,
    )


def complete(config: TrainConfig) -> TrainConfig:
    """Fill in options that depend on others, and check everything that can be checked without data.

    Raises:
        ValueError: A value out of its range, or a name that is not known here.
    """
    check_choices(config)
    check_ranges(config)
    if config.train.ema is not None and config.train.strategy == "fsdp":
        raise ValueError("train.ema needs the whole model in every process: choose train.strategy ddp, or leave it out")
    if config.data.root:  # absolute, so that the run can be evaluated from any folder
        config = replace(config, data=replace(config.data, root=str(Path(config.data.root).absolute())))
    given = config.model.name.startswith(GIVEN)
    if not given and takes_backbone(config.model.name):
        backbone = config.model.backbone or DEFAULT_BACKBONE
        stride: Any = config.model.output_stride or usual_stride(backbone)
        config = replace(config, model=replace(config.model, backbone=backbone, output_stride=stride))
    if config.model.compat == "original":
        check_original(config.model.name, config.model.backbone or "", config.model.output_stride or 0)
    if config.optim.head_lr_factor is None and not given:
        factor = HEAD_LR_FACTORS.get(config.model.name, max(HEAD_LR_FACTORS.values()))
        config = replace(config, optim=replace(config.optim, head_lr_factor=factor))
    config = replace(config, loss=_complete_loss(config))
    for name in config.data.augment:
        _augmentation(name, config.data)
    sections = {name: _with_own_options(getattr(config, name), name) for name in OWN_OPTIONS}
    return replace(config, made_with=made_with(config), **sections)


def with_precision(config: C, has_fast_bf16: bool) -> C:
    """Fill in the precision, where the device is to choose it."""
    if config.train.precision != "auto":
        return config
    return replace(config, train=replace(config.train, precision="bf16" if has_fast_bf16 else "fp32"))


def made_with(config: TrainConfig) -> list[str]:
    """The plugins that are loaded, and the modules of others that registered something which the options name."""
    chosen = [component.origin for component in chosen_components(config)]
    own = [origin for origin in chosen if not origin.startswith("rmiseg.")]
    loaded = loaded_plugins()
    known = {name.removesuffix(".py").rpartition("/")[2] for name in loaded}
    return [*loaded, *dict.fromkeys(origin for origin in own if origin not in known)]


def _with_own_options(section: Any, name: str) -> Any:
    """A section of the options with all own options of the component that it names, checked."""
    if section.name.startswith(GIVEN) or hasattr(section, section.name):  # whose options have a section of their own
        return section
    component = find(OWN_OPTIONS[name], section.name)
    return replace(section, options=checked_options(component, section.options, f"{name}.options"))


def _complete_loss(config: TrainConfig) -> LossConfig:
    """The options of the loss, with those that follow from the network."""
    loss, original = config.loss, config.model.compat == "original"
    if original and loss.align_corners is False:
        raise ValueError("model.compat original interpolates with aligned corners; leave loss.align_corners out")
    auxiliary = loss.name if original and loss.name in OWN_CRITERION else "ce"
    aligned = original or bool(config.model.options.get("align_corners", False))
    return replace(
        loss,
        align_corners=aligned if loss.align_corners is None else loss.align_corners,
        aux_loss=loss.aux_loss or auxiliary,
    )


def train_dataset(
    images: LabeledImages, config: DataConfig, transform: Any = None, console: Console | None = None
) -> SegmentationDataset:
    """The training images with their augmentation, read at the size that it needs.

    Args:
        images: The images.
        config: The augmentation.
        transform: Takes its place: any transform of torchvision.transforms.v2, or an albumentations pipeline.
        console: Where to show progress, if all masks are read to find rare classes.
    """
    if transform is None:
        transform = find("transform", config.transform).make(config)
    steps = [_augmentation(name, config) for name in config.augment]
    mixing = [step for step in steps if isinstance(step, Mixing)]
    rare = None
    if config.rare_share or any(each.of_rare for each in mixing):
        rare = on_main(lambda: find_places(images, worker_count(config.workers, len(images)), console, config.on_error))
    reduction = getattr(transform, "reduction", 1)
    if alone := [step for step in steps if not isinstance(step, Mixing)]:
        first = [*transform.transforms] if isinstance(transform, TrainTransform) else [adapt_transform(transform)]
        kind = TrainTransform if isinstance(transform, TrainTransform) else Compose
        transform = kind([*first, *alone])
    return SegmentationDataset(
        images, adapt_transform(transform), reduction, rare=rare, rare_share=config.rare_share, mixing=mixing
    )


def _augmentation(name: str, config: DataConfig) -> Any:
    """An augmentation of `data.augment`, with its options.

    Raises:
        ValueError: One that it does not have or take.
    """
    component, options = find("augmentation", name), config.augment[name]
    if component.name.endswith(":"):
        return component.make(name.partition(":")[2], config, **options)
    return component.make(config, **checked_options(component, options, f"data.augment.{name}"))


def make_loaders(
    config: DataConfig, seed: int, parts: Parts, warn: Callable[[str], None], console: Console
) -> tuple[TrainLoader, Loader]:
    """Batches of this process to train on, and to score on.

    Args:
        config: The options of the data set.
        seed: Seed of order and augmentation.
        parts: What they leave to objects.
        warn: Called with what is wrong with an image that is skipped.
        console: Where to show progress, if all masks are read first.
    """
    loading: dict[str, Any] = {
        "workers": config.workers,
        "rank": rank(),
        "world_size": world_size(),
        "on_error": config.on_error,
        "warn": warn,
        "outlive_termination": True,
    }
    images = train_dataset(parts.train, config, parts.transform, console)
    batches = train_loader(images, batch_size=config.batch_size, seed=seed, repeat=config.repeat, **loading)
    return batches, eval_loader(SegmentationDataset(parts.val, eval_transform(config.image_scale)), **loading)


def with_class_weights(config: TrainConfig, images: LabeledImages, console: Console) -> TrainConfig:
    """The options with class weights in place of "balanced"; those of a run that goes on are the ones that it has.

    Args:
        config: The options.
        images: The images to train on, all of whose masks are read for it otherwise.
        console: Where to show progress.
    """
    if config.loss.class_weights != BALANCED:
        return config
    weights = on_main(
        lambda: (
            RunFolder(config).class_weights(len(images.classes))
            or balanced_weights(images, config.data.workers, console)
        )
    )
    return replace(config, loss=replace(config.loss, class_weights=weights))


def make_model(
    config: TrainConfig,
    num_classes: int,
    device: torch.device,
    console: Console,
    network: nn.Module | None = None,
    classes: Sequence[str] = (),
) -> SegmentationModel:
    """Build the model, load initial weights, and prepare its norm layers as configured.

    Args:
        config: The options of the training.
        num_classes: Number of classes C.
        device: Where to train.
        console: Where to say which initial weights fit.
        network: Takes the place of the model that `config` names.
        classes: Names of the classes, if they are known.
    """
    bands = Bands.of(config.data)
    options: dict[str, Any] = {"in_channels": bands.count, "rgb": bands.rgb, **asdict(config.model)}
    build_with: Callable[..., SegmentationModel] | None = None
    if network is not None:
        model = adapt_model(network, num_classes, in_channels=bands.count)
    else:
        model = build_model(num_classes=num_classes, **options)
        build_with = partial(build_model, **options | {"weights": "none", "architecture": model.architecture})
    if not config.train.freeze_norm:
        model = synchronize_norm(model, config.train.sync_norm, device)
    model = model.to(device).to(memory_format=torch.channels_last)  # a fifth faster on a CPU
    model.align_corners = bool(config.loss.align_corners)
    model.expect(config.data.image_mean, config.data.image_std)
    set_norm_momentum(model, config.train.norm_momentum)
    if config.init is not None:
        initialize(model, config.init, console, classes, build_with)
    if config.train.freeze_norm:
        model.freeze_norm()
    return model


def make_step(config: TrainConfig, model: SegmentationModel, criterion: Criterion, device: torch.device) -> TrainStep:
    """Wrap the model for several processes and compile it as configured, and build its optimizer.

    The precision is chosen, see `with_precision`.
    """
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[config.train.precision]
    criterion.to(device)
    network = distribute(model, config.train.strategy, device)
    if config.train.compile:
        network = torch.compile(network)  # type: ignore[assignment]  # for training alone: images to score come in many sizes
        criterion.compile()
    optimizer = build_optimizer(model, config.optim)
    scaler = torch.amp.GradScaler(device.type, enabled=config.train.precision == "fp16")
    return TrainStep(model, network, criterion, optimizer, scaler, dtype, device, config.optim.clip_norm)
