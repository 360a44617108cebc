"""The options that a run was started with: written, read again, and what older runs did without saying so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from rmiseg.config import OpenConfig, TrainConfig
from rmiseg.config.parser import train_config
from rmiseg.config.recipes import CONFIG_FILE, flat, merged, nested, read_recipe
from rmiseg.config.registry import OWN_OPTIONS, find, is_known
from rmiseg.runtime.files import write_text

UNSAID = {"optim.warmup_to": "curve"}
"""Options that config.yaml of older runs does not name, and what those runs did."""

OFF: dict[str, Any] = {
    "data.folds": None,
    "data.held_out": None,
    "data.augment": {},
    "data.rare_share": 0.0,
    "train.ema": None,
    "optim.clip_norm": None,
    "optim.layer_decay": 1.0,
}
"""Those of them that are as they were then by default."""


def stored_options(folder: Path) -> dict[str, Any]:
    """The options that the run in a folder was started with, by their dotted names."""
    said = flat(read_recipe(folder / CONFIG_FILE))
    return _unsaid(said) | said


def _unsaid(said: Mapping[str, Any], known: Mapping[str, Any] = UNSAID) -> dict[str, Any]:
    """Options that an older run does not name in a section that it has, and what it did."""
    sections = {name.partition(".")[0] for name in said}
    return {name: value for name, value in known.items() if name not in said and name.partition(".")[0] in sections}


def with_defaults(said: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run with those that there were none of when it was made, which are off by default."""
    options = _unsaid(said, OFF) | dict(said)
    for section, kind in OWN_OPTIONS.items():
        name, own = said.get(f"{section}.name"), said.get(f"{section}.options")
        if not isinstance(name, str) or not isinstance(own, Mapping) or not is_known(kind, name):
            continue
        if not any(option.startswith(f"{section}.{name}.") for option in said):  # in a section of their own
            options[f"{section}.options"] = {**find(kind, name).defaults, **own}
    return options


def with_unsaid(config: TrainConfig) -> TrainConfig:
    """The options of a run that may go on, with what the older run in its folder did where it did not say so."""
    folder = Path(config.out)
    if config.resume == "never" or not (folder / CONFIG_FILE).is_file():
        return config
    said = flat(read_recipe(folder / CONFIG_FILE))
    for name, value in _unsaid(said).items():
        section, _, field = name.partition(".")
        config = replace(config, **{section: replace(getattr(config, section), **{field: value})})
    return config


def as_begun(config: TrainConfig) -> TrainConfig:
    """The options of a run that may go on, with what was decided when it began in place of what is open.

    A run that goes on decides nothing again: options that are not given are those of its config.yaml, a budget of hours
    is the steps that it became, and a precision that the device chose is the one that it chose then.
    """
    folder = Path(config.out)
    if config.resume == "never" or not (folder / CONFIG_FILE).is_file():
        return config
    stored = read_recipe(folder / CONFIG_FILE)
    if isinstance(config, OpenConfig):
        own = {name: getattr(config, name) for name in ("out", "resume", "device", "plan", "made_with")}
        given, values = dict[str, Any](), flat(plain_options(config))
        for name in config.given:
            given = merged(given, nested(name, values[name])) if name in values else given
        try:
            config = replace(train_config({**merged(stored, given), "plan": None}), **own)
        except ValueError as error:  # what was given has been read without one
            raise ValueError(f"{folder / CONFIG_FILE}: {error}") from error
    said = flat(stored)
    steps, precision = said.get("train.steps"), said.get("train.precision")
    if config.train.hours is not None and steps is not None:
        config = replace(config, train=replace(config.train, hours=None, steps=steps))
    if config.train.precision == "auto" and precision is not None:
        config = replace(config, train=replace(config.train, precision=precision))
    return config


def write_config(path: Path, config: TrainConfig) -> None:
    """Write `config` as a YAML file that `rmiseg train` takes as a recipe."""
    write_text(path, yaml.safe_dump(plain_options(config), sort_keys=False))


def plain_options(config: TrainConfig) -> dict[str, Any]:
    """The options by way of JSON, which turns tuples into the lists that YAML has."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return plain
