"""No number is taken that makes no sense."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import replace
from typing import Any, get_args, get_type_hints

import pytest

from rmiseg.cli import main
from rmiseg.config import TrainConfig
from rmiseg.config.parser import train_config
from rmiseg.config.ranges import RANGES, check_ranges
from rmiseg.training.assembly import complete


def numeric(config: Any, prefix: str = "") -> list[str]:
    """Names of the options that take numbers, alone or in lists."""
    names = []
    for name, kind in get_type_hints(config).items():
        if dataclasses.is_dataclass(kind):
            names += numeric(kind, f"{prefix}{name}.")
        elif re.search(r"\b(int|float|8, 16, 32)\b", str(kind) if get_args(kind) else kind.__name__):
            names.append(prefix + name)
    return names


def test_every_number_has_a_range():
    assert set(numeric(TrainConfig)) == set(RANGES)
    check_ranges(TrainConfig())


def with_value(name: str, value: Any) -> TrainConfig:
    """Options with a value that no recipe could give."""
    config = TrainConfig()
    *sections, last = name.split(".")
    parents = [config]
    for section in sections:
        parents.append(getattr(parents[-1], section))
    changed = replace(parents.pop(), **{last: value})
    for section in reversed(sections):
        changed = replace(parents.pop(), **{section: changed})
    return changed


@pytest.mark.parametrize("name", RANGES)
def test_numbers_out_of_range_are_refused(name):
    low, high = RANGES[name]
    given = getattr(train_config({}), name.split(".")[0])
    for part in name.split(".")[1:]:
        given = getattr(given, part)
    for value in (math.nan, math.inf, -math.inf, 10.0**30, 10**400, low - 1, high + max(1, high)):
        several = isinstance(given, list | tuple) or name in ("loss.class_weights", "loss.plus")
        wrapped = ({"ce": value} if name == "loss.plus" else [value, value]) if several else value
        with pytest.raises(ValueError, match=re.escape(f"{name} must be {low:.15g} or more, and at most")):
            check_ranges(with_value(name, wrapped))


def test_numbers_in_options_of_plugins_are_finite():
    with pytest.raises(ValueError, match=r"model\.options must be a finite number, not nan"):
        check_ranges(with_value("model.options", {"a": [1, {"b": math.nan}]}))


@pytest.mark.parametrize(
    "option",
    [
        "data.workers=100000000000000000000000",
        "data.image_scale=1000",
        "optim.head_lr_factor=1e400",
        "optim.head_lr_factor=.inf",
        "optim.lr=.nan",
        "loss.plus={ce: .nan}",
        "loss.class_weights=[.inf, 1]",
        "data.scale_range=[1, .inf]",
        "optim.momentum=1e30",
        "optim.warmup_lr=.inf",
        "train.epochs=1000000000000000000000000",
        "train.ema=1",  # it would stay what it was at first
        "optim.momentum=1",
        "optim.lr=1e12",
        "optim.step_factor=1e6",
    ],
)
def test_nonsense_in_recipes(tmp_path, capsys, option):
    name, _, value = option.partition("=")
    *sections, last = name.split(".")
    nested = "".join(f"{section}: {{" for section in sections) + f"{last}: {value}" + "}" * len(sections)
    (tmp_path / "recipe.yaml").write_text(nested)
    with pytest.raises(ValueError, match=f"{re.escape(name)}(: .* is not | must be .* or more, and at most)"):
        complete(train_config(tmp_path / "recipe.yaml"))
    assert main(["train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]) == 1
    assert name in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("predict run image.png --scales 1e9", "scales"),
        ("predict run image.png --scales .nan", "scales"),
        ("predict run image.png --opacity .nan", "opacity"),
        ("evaluate run --dense_crf.bilateral_sxy .inf", "dense_crf.bilateral_sxy"),
        ("compare a b --resamples 1000000000000", "resamples"),
        ("report run --image_size 100000000", "image_size"),
        ("data check --workers 100000000000000000000", "workers"),
        ("demo --seed -1", "seed"),
    ],
)
def test_nonsense_in_other_commands(capsys, command, name):
    assert main(command.split()) == 1
    assert f"{name} must be" in capsys.readouterr().err
