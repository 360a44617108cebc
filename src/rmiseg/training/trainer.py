"""The door to training, from Python and from the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, TypeVar

import torch
from rich.console import Console
from torch import nn

from rmiseg.config import OpenConfig, TrainConfig
from rmiseg.config.parser import train_config
from rmiseg.config.registry import find, given_name
from rmiseg.data import ClassTable, LabeledImages, OwnImages
from rmiseg.data.bands import Bands
from rmiseg.data.loader import worker_deaths
from rmiseg.data.training import check_given_masks
from rmiseg.planning import this_machine
from rmiseg.runtime import terminal
from rmiseg.runtime.device import has_fast_bf16, tune
from rmiseg.runtime.distributed import is_main, on_main, processes
from rmiseg.runtime.signals import TerminationRequest
from rmiseg.training.assembly import complete, open_splits, with_precision
from rmiseg.training.budget import Budget
from rmiseg.training.callbacks import Callback
from rmiseg.training.criterion import LossFunction
from rmiseg.training.folds import cross_validate
from rmiseg.training.loggers import Logger
from rmiseg.training.loop import TrainingRun
from rmiseg.training.parts import Parts, check_parts, check_unused, never_called
from rmiseg.training.planned import OpenTraining, with_length
from rmiseg.training.run_folder import RunFolder, RunResult
from rmiseg.training.stored_options import as_begun, with_unsaid

C = TypeVar("C", bound=TrainConfig)


class Trainer:
    """Trains a model into a folder, in all processes that torchrun started, if it did.

    Everything beside `config` takes the place of a part that `config` names.

    Args:
        config: The options: a `TrainConfig`, dictionaries nested like a recipe, or the path of a recipe.
        model: The network: an nn.Module from images (N, bands, H, W), normalized, to logits (N, C, h, w) at any stride,
            or to a dict with "out". Its attributes image_mean and image_std, if it has them, are what images are
            normalized with; else ImageNet's.
        train: Images to train on: a torch Dataset of (image, mask), see `rmiseg.data.OwnImages`.
        val: Images to score on, likewise.
        classes: Names of the C classes, whose ids are 0 to C - 1 in the masks; or a `ClassTable`. Needed with `train`.
        loss: Called as loss(logits, target). A `SegmentationLoss` gets logits at the network's stride, and its mean is
            over all pixels of a step; any other gets them at the size of the target, and its values of micro-batches
            and processes are averaged.
        transform: Augmentation of image and mask together: transforms of torchvision.transforms.v2, or an
            albumentations pipeline; of crops of one size.
        callbacks: Called as the training goes on.
        loggers: Where curves go, beside those that `config` names.
        console: Where to show what is going on, standard output if None; rich's `Console(quiet=True)` shows nothing.

    Raises:
        ValueError: An option that does not exist or is out of its range, or parts that do not fit together.

    Examples:
        >>> options = {"out": "runs/mine", "train": {"epochs": 10}}
        >>> trainer = Trainer(options, train=images, val=others, classes=["road", "car"])
        >>> result = trainer.fit()
        >>> result.scores["mean_iou"]
    """

    def __init__(
        self,
        config: TrainConfig | Mapping[str, Any] | str | os.PathLike[str],
        *,
        model: nn.Module | None = None,
        train: Any = None,
        val: Any = None,
        classes: Sequence[str] | ClassTable | None = None,
        loss: LossFunction | None = None,
        transform: Any = None,
        callbacks: Sequence[Callback] = (),
        loggers: Sequence[Logger] = (),
        console: Console | None = None,
    ) -> None:
        if (train is None) != (val is None):
            raise ValueError("give both train and val, or neither")
        if train is None and classes is not None:
            raise ValueError("classes are for data sets that are given as train and val; others name their own")
        check_parts(model, loss, callbacks, loggers)
        self.model, self.loss, self.transform = model, loss, transform
        self.loggers = tuple(loggers)
        self.console = console or terminal.Console(markup=False)
        source = os.fspath(config) if isinstance(config, os.PathLike) else config
        options = as_begun(train_config(source))
        self.train = None if train is None else _images(train, "train", classes, options)
        self.val = None if val is None else _images(val, "val", classes, options)
        self.config = with_unsaid(complete(self._with_names(options)))
        if self.config.data.folds is not None and (loggers or callbacks or self._replaced()):
            raise ValueError("data.folds trains several models: parts must have names, none can be given as objects")
        if self.config.train.hours is not None and any(part is not None for part in (model, loss, transform)):
            raise ValueError("train.hours: only parts that have names are measured; give train.steps")
        named = [find("callback", name).make() for name in self.config.train.callbacks]
        self.callbacks: tuple[Callback, ...] = (*named, *callbacks)
        for line in never_called(self.callbacks):
            self.console.print(f"warning: {line}", soft_wrap=True)

    def fit(self) -> RunResult:
        """Train, or go on with a training that was interrupted if `config.resume` is "auto" or "changed".

        The folder gets config.yaml (everything that was asked for), checkpoints/, curves.csv, TensorBoard's event
        files, and at the end result.json. With `config.data.folds` see `cross_validate`.

        Raises:
            ValueError, OSError: Anything wrong with the options or the data, with what to do about it.
            FloatingPointError: The loss is not finite, many steps in a row.
            Preempted: SIGTERM arrived; the run was saved, and `resume="auto"` goes on with it.
        """
        if self.config.data.folds is not None:
            return cross_validate(self.config, lambda fold: Trainer(fold, console=self.console).fit(), self.console)
        with (
            processes(self.config.device) as device,
            TerminationRequest() as request,
            worker_deaths(),
            ExitStack() as stack,
        ):
            console = self.console if is_main() else Console(quiet=True)
            folder = RunFolder(self.config)
            if self.config.resume != "never" and (finished := on_main(folder.finished)) is not None:
                console.print(f"The run in {self.config.out} is finished", markup=False)
                return finished
            on_main(folder.check_room)  # before the data are read, which may take long
            tune(device)
            config, train, val = self._decided(device, console)
            parts = Parts(train, val, self.model, self.loss, self.transform, self.callbacks, self.loggers)
            run = TrainingRun(config, parts, device, request, stack, console)
            if (hours := self.config.train.hours) is not None:
                run.budget = Budget(hours, run.total_steps)
            return run.train()

    def _decided(self, device: torch.device, console: Console) -> tuple[TrainConfig, LabeledImages, LabeledImages]:
        """The options with what the data and the machine decide, and the images."""
        asked = on_main(lambda: with_precision(self.config, has_fast_bf16(device)))
        if asked.train.precision == "bf16" and device.type in ("cpu", "cuda") and not has_fast_bf16(device):
            kind = "CPU" if device.type == "cpu" else "GPU"
            console.print(
                f"warning: train.precision bf16 may take ten times as long as fp32 on this {kind}, which has no "
                "instructions for it; auto is bf16 where it is faster",
                soft_wrap=True,
            )
        if not isinstance(asked, OpenConfig):
            config, train, val = self._data(asked, console)
            return on_main(lambda: with_length(config, train, val, device, console)), train, val
        opened = OpenTraining(asked, self._replaced(), console)
        before = on_main(opened.on_data)
        open_config, train, val = self._data(opened.with_decided(before), console)
        opened = replace(opened, config=open_config)
        plan = on_main(lambda: opened.plan(train, val, this_machine(device), device, before))
        plan.show(console)
        return plan.config, train, val

    def _replaced(self) -> tuple[str, ...]:
        """The parts that are given as objects."""
        given = {"data": self.train, "transform": self.transform, "model": self.model, "loss": self.loss}
        return tuple(name for name, part in given.items() if part is not None)

    def _data(self, config: C, console: Console) -> tuple[C, LabeledImages, LabeledImages]:
        """The images, and the options with what was learned from them."""
        if self.train is not None and self.val is not None:
            given = self.train, self.val
            on_main(lambda: check_given_masks(*given, config.data.on_error))
            data = replace(config.data, **self.train.bands.options())
            return replace(config, data=data), self.train, self.val
        train, val = on_main(lambda: open_splits(config.data, console))
        return replace(config, data=replace(config.data, **train.bands.options())), train, val

    def _with_names(self, config: TrainConfig) -> TrainConfig:
        """The options with names for the parts that are given as objects, as they are stored with the run.

        Raises:
            ValueError: They hold an option for a part that is given.
        """
        for name, part in (
            ("data", self.train),
            ("transform", self.transform),
            ("model", self.model),
            ("loss", self.loss),
        ):
            if part is not None:
                check_unused(config, name)
        if self.train is not None:
            data = replace(config.data, name=given_name(self.train.origin), root="", options={})
            config = replace(config, data=data)
        if self.transform is not None:
            config = replace(config, data=replace(config.data, transform=given_name(self.transform)))
        if self.model is not None:
            name, weights = given_name(self.model), "none"
            config = replace(
                config, model=replace(config.model, name=name, weights=weights, backbone=None, output_stride=None)
            )
        if self.loss is not None:
            config = replace(config, loss=replace(config.loss, name=given_name(self.loss)))
        return config


def train(
    config: TrainConfig | Mapping[str, Any] | str | os.PathLike[str], *, console: Console | None = None
) -> RunResult:
    """Train as `rmiseg train` does; see `Trainer`, which also takes parts of your own.

    Args:
        config: The options: a `TrainConfig`, dictionaries nested like a recipe, or the path of a recipe.
        console: Where to show what is going on.
    """
    return Trainer(config, console=console).fit()


def _images(data: Any, split: str, classes: Sequence[str] | ClassTable | None, config: TrainConfig) -> LabeledImages:
    if isinstance(data, LabeledImages):
        if classes is not None:
            raise ValueError("classes are for torch data sets; this one names its own")
        return data
    if classes is None:
        raise ValueError(f"{split} needs classes=[...], the names of the classes 0, 1, ... in its masks")
    return OwnImages(data, classes, name=split, bands=Bands.of(config.data))
