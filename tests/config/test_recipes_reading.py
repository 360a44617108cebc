"""Recipes are read strictly, may begin with another, and never run code."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from rmiseg.config import TrainConfig
from rmiseg.config.parser import parse_command, train_config, with_its_recipe
from rmiseg.config.recipes import flat, merged, read_recipe


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


BOMB = "model:\n  options:\n    a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"    a{n}: &a{n} [{', '.join(9 * [f'*a{n - 1}'])}]\n" for n in range(1, 20)
)
"""A few lines that stand for 10^19 values."""


def complaint(path: Path) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as raised:
        train_config(path)
    assert str(path) in str(raised.value)
    assert len(str(raised.value)) < 1000
    return str(raised.value)


def test_base(tmp_path):
    """Of bases, the options of whoever names them have the last word; paths are relative to the recipe's own folder."""
    write(tmp_path / "a.yaml", "optim: {lr: 0.1, momentum: 0.5}\nloss: {rmi: {pool_size: 2}}\nseed: 1\n")
    write(tmp_path / "deep" / "b.yaml", "base: ../a.yaml\noptim: {lr: 0.2}\n")
    config = train_config(write(tmp_path / "c.yaml", "base: deep/b.yaml\nloss: {rmi: {region_size: 4}}\n"))
    assert (config.seed, config.optim.lr, config.optim.momentum) == (1, 0.2, 0.5)
    assert (config.loss.rmi.pool_size, config.loss.rmi.region_size) == (2, 4)
    assert config.data == TrainConfig().data


def test_the_folder_of_a_run_is_its_recipe(tmp_path):
    """Wherever it was moved; but another folder can be named, for the same training again."""
    write(tmp_path / "moved" / "config.yaml", "out: runs/mine\nseed: 3\n")
    _, config = parse_command(["train", str(tmp_path / "moved"), "--resume", "auto"])
    assert (config.out, config.seed, config.resume) == (str(tmp_path / "moved"), 3, "auto")
    _, again = parse_command(["train", str(tmp_path / "moved"), "--out", "again"])
    assert (again.out, again.seed) == ("again", 3)
    assert "is no folder of a run" in complaint(tmp_path)


def test_bases_that_cannot_be(tmp_path):
    write(tmp_path / "a.yaml", "base: b.yaml\n")
    write(tmp_path / "b.yaml", "base: a.yaml\n")
    assert "is its own base" in complaint(tmp_path / "a.yaml")
    message = complaint(write(tmp_path / "c.yaml", "base: no.yaml\n"))
    assert str(tmp_path / "no.yaml") in message
    assert "base must be the name of a recipe" in complaint(write(tmp_path / "d.yaml", "base: [a.yaml]\n"))
    message = complaint(write(tmp_path / "e.yaml", f"base: {write(tmp_path / 'f.yaml', 'optim: {lrr: 1}')}"))
    assert str(tmp_path / "f.yaml") in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim: {lr: 0.1}\noptim: {momentum: 0.5}\n", "line 2: 'optim' is given twice, first in line 1"),
        ("optim:\n  lr: 0.1\n  lr: 0.2\n", "line 3: 'lr' is given twice, first in line 2"),
        ("optim: {lrr: 0.1}\n", "there is no option optim.lrr; did you mean optim.lr?"),
        ("optim: fast\n", "optim is a section with options of its own, not 'fast'"),
        ("- optim\n", "a recipe must be a mapping"),
        ("optim: {lr: quick}\n", "optim.lr: quick is not a number"),
        ("optim: {lr: [0.1]}\n", "optim.lr: [0.1] is not a number"),
        ("train: {steps: 1e3}\n", "train.steps: 1000.0 is not a whole number; write 1000"),
        ("data: {flip: yes}\n", "data.flip: true is not a number"),
        ("data: {crop_size: null}\n", "data.crop_size: null is not 2 whole numbers, such as [1,2]"),
        ("train: {metrics: cldice}\n", "train.metrics: cldice is not a list of texts, such as [a,b]"),
        ("data: {crop_size: [3]}\n", "data.crop_size: [3] is not 2 whole numbers, such as [1,2]"),
        ("model: {output_stride: 5}\n", "model.output_stride: 5 is none of 8, 16, 32"),
        ("train: {compile: perhaps}\n", "train.compile: perhaps is not true or false"),
        ("train: {steps: 1.5}\n", "train.steps: 1.5 is not a whole number"),
        ("loss: {class_weights: 3}\n", "loss.class_weights: 3 is not a list of numbers, such as [1,2] or balanced"),
        ("optim: {slow_start_steps: 1, warmup_steps: 2}\n", "optim.warmup_steps is given twice"),
        ("optim: {lr: 0.1", "while parsing"),
        ("seed: !!int ''", "line 1:  is no int"),
        ("optim: {lr: !!float _}", "line 1: _ is no float"),
        ("train: {metrics: [" + 501 * "a," + "]}", "train.metrics has 501 values, and may have 500"),
        ("\x00", "unacceptable character"),
        ("loss: {options: {1: a, 0x1: b}}\n", "line 1: '0x1' is given twice, first in line 1"),
        ("out: a\nseed: !!timestamp x\n", "line 2: !!timestamp is not read"),
        ("out: !!timestamp 2020-99-99\n", "line 1: !!timestamp is not read"),
        ("train: {compile: !!bool x}\n", "line 1: x is no bool"),
        ("seed: " + 10_000 * "9", "99 ... is no int"),
        ("out: " + 2_000_000 * "x", "it has 2000005 bytes, and may have 250000"),
        ("optim: {lr: " + 200_000 * "x" + "}", "optim.lr: xxx"),
        ("? " + 200_000 * "x" + "\n: 1", "there is no option xxx"),
        ("\n".join(f"key{number}: 1" for number in range(20_000)), "line 2501: it holds more than 5000 values"),
        ("model: {options: {a: " + 5000 * "[" + 5000 * "]" + "}}", "line 1: it is more than 40 levels deep"),
        ("model: {options: &a {b: *a}}", "line 1: an alias stands for what it is a part of"),
        (BOMB, "line 6: it holds more than 5000 values, aliases counted as what they are"),
    ],
)
def test_errors_name_file_option_and_value(tmp_path, text, message):
    assert message in complaint(write(tmp_path / "recipe.yaml", text))


def test_every_complaint_comes_within_a_second(tmp_path):
    texts = [BOMB, 20_000 * "a: 1\n", 5000 * "{a: ", 240_000 * "x", 60_000 * "- a\n", 100_000 * "? "]
    started = time.process_time()
    for text in texts:
        complaint(write(tmp_path / "recipe.yaml", text))
    assert time.process_time() - started < len(texts)


def test_files_that_are_no_recipes(tmp_path):
    """A link to itself, a pipe, a folder, a file of another kind, a name that is too long, and a chain without end."""
    loop, pipe, secret = tmp_path / "loop.yaml", tmp_path / "pipe.yaml", tmp_path / "secret.txt"
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    secret.write_text("the secret " + 100 * "word ")
    for number in range(60):
        write(tmp_path / f"c{number}.yaml", f"base: c{number + 1}.yaml\n")
    for base in ("loop.yaml", "pipe.yaml", ".", "/dev/zero", 5000 * "x", '"a\\0b"', "secret.txt", "c0.yaml"):
        message = complaint(write(tmp_path / "recipe.yaml", f"base: {base}\n"))
        assert len(message) < 700
        assert 20 * "word " not in message
    with pytest.raises(FileNotFoundError, match=r"loop\.yaml does not exist"):
        train_config(loop)


def test_numbers_of_hundreds_of_digits(tmp_path):
    assert "is no int" in complaint(write(tmp_path / "recipe.yaml", f"optim: {{lr: {400 * '9'}}}"))
    with pytest.raises(ValueError, match="hundreds of digits"):
        parse_command(["train", "--optim.lr", 400 * "9"])


@pytest.mark.parametrize(
    ("message", "arguments", "names_it"),
    [
        ("model.name: x is none of", [], True),
        ("model.options.a: the model has no option", [], True),
        ("seed must be 0 or more", [], True),
        ("seed must be 0 or more", ["--seed", "-2"], False),
        ("seed must be 0 or more", ["--seed=-2"], False),
        ("optim.lr must be positive", [], False),
        ("split train has no images", [], False),
        ("", [], False),
    ],
)
def test_later_errors_name_the_recipe_too(tmp_path, message, arguments, names_it):
    recipe = str(write(tmp_path / "a.yaml", "seed: -1\nmodel: {name: x, options: {a: 1}}\n"))
    for given in (["train", recipe, *arguments], ["plan", *arguments, "--recipe", recipe]):
        assert with_its_recipe(message, given) == (f"{recipe}: {message}" if names_it else message)
    assert with_its_recipe("seed must be", ["train"]) == "seed must be"


def test_aliases_within_reason(tmp_path):
    text = "data: {crop_size: &size [3, 4]}\nmodel: {options: {a: *size}}\n"
    config = train_config(write(tmp_path / "a.yaml", text))
    assert (config.data.crop_size, config.model.options) == ((3, 4), {"a": [3, 4]})


def test_no_option_opens_a_file(tmp_path, monkeypatch):
    write(tmp_path / "other.yaml", "ce: 1.0\n")
    monkeypatch.chdir(tmp_path)
    for text in ("loss: {plus: other.yaml}", "model: {options: other.yaml}", "loss: {class_weights: other.yaml}"):
        assert "other.yaml is not a" in complaint(write(tmp_path / "recipe.yaml", text))
    assert train_config(write(tmp_path / "recipe.yaml", "data: {root: '@other.yaml'}")).data.root == "@other.yaml"


def test_older_names(tmp_path):
    config = train_config(write(tmp_path / "a.yaml", "optim: {slow_start_steps: 7, slow_start_lr: 0.5}\n"))
    assert (config.optim.warmup_steps, config.optim.warmup_lr) == (7, 0.5)


CLASS = "{class_path: evil.Options, init_args: {a: 1}}"


@pytest.mark.parametrize(
    ("text", "is_error"),
    [
        ("optim: {class_path: evil.Options}", True),
        ("optim: evil.Options", True),
        ("optim: [evil]", True),
        (f"data: {{augment: {CLASS}}}", True),
        # Options of components have values of any type.
        (f"model: {{options: {CLASS}}}", False),
        (f"data: {{options: {{a: {CLASS}}}}}", False),
        (f"data: {{options: {{a: [{{b: {CLASS}}}]}}}}", False),
        (f"data: {{augment: {{blur: {{sigma: {CLASS}}}}}}}", False),
        (f"loss: {{plus: {{focal: {{weight: {CLASS}}}}}}}", False),
        ('loss: {options: {a: "{class\\u005fpath: evil.Options}"}}', False),
        ("loss: {plus: '{focal: {weight: {class_path: evil.Options}}}'}", False),
        ("made_with: [evil]", False),
    ],
)
def test_no_recipe_imports_anything(tmp_path, monkeypatch, text, is_error):
    write(tmp_path / "evil.py", f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Options: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    recipe = write(tmp_path / "recipe.yaml", text)
    if is_error:
        complaint(recipe)
    else:
        train_config(recipe)
        parse_command(["train", str(recipe)])
    assert "evil" not in sys.modules
    assert not (tmp_path / "ran").exists()


def test_mappings_stay_whole(tmp_path):
    recipe = write(tmp_path / "a.yaml", "loss: {plus: {'smp:Dice': 0.5, ce: 1}, options: {a: {b: 1}}}\n")
    assert train_config(recipe).loss.plus == {"smp:Dice": 0.5, "ce": 1.0}
    assert flat(read_recipe(recipe)) == {"loss.plus": {"smp:Dice": 0.5, "ce": 1}, "loss.options": {"a": {"b": 1}}}


def test_dictionaries_and_complete_options():
    config = train_config({"optim": {"lr": 0.5}, "data": {"crop_size": (3, 4)}})
    assert (config.optim.lr, config.data.crop_size) == (0.5, (3, 4))
    assert train_config(config) is config
    with pytest.raises(ValueError, match=r"there is no option data\.rot; did you mean data\.root"):
        train_config({"data": {"rot": "x"}})


def test_merged_does_not_change_what_it_merges():
    first, second = {"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}
    assert merged(first, second) == {"a": {"b": 3, "c": 2}}
    assert first == {"a": {"b": 1, "c": 2}}
