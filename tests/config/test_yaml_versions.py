"""What versions of YAML read otherwise: numbers such as 010 and 1:30 are refused, and yes and no are words."""

from __future__ import annotations

import pytest

from rmiseg.config.parser import parse_command, train_config
from rmiseg.config.recipes import read_yaml
from rmiseg.data.description import read_description


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("010", "8 in YAML 1.1, and 10 in YAML 1.2"),
        ("-017", "-15 in YAML 1.1, and -17 in YAML 1.2"),
        ("1:30", "90 in YAML 1.1, and a text in YAML 1.2"),
        ("1:30.5", "90.5 in YAML 1.1, and a text"),
        ("0b11", "3 in YAML 1.1, and a text"),
        ("2007_000032", "2007000032 in YAML 1.1, and a text"),
        ("0x1_0", "16 in YAML 1.1, and a text"),
    ],
)
def test_numbers_that_versions_read_otherwise(tmp_path, text, read):
    path = tmp_path / "a.yaml"
    for content in (f"a: 1\nb: {text}", f"a: 1\nb: [{text}]", f"a: 1\n{text}: b"):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"a\.yaml: line 2: .*as a decimal, or '.*' in quotes") as error:
            read_yaml(path)
        assert f"{text} is {read}" in str(error.value)
    path.write_text(f"a: '{text}'\nb: \"{text}\"")
    assert read_yaml(path) == {"a": text, "b": text}


def test_what_is_the_same_in_both(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("[0, -0, 10, 0x1F, 1.5, .5, 1.0e-3, true, False, null, 08, a_1, 'on', x:1, 2020-01-01, yes, Off]")
    expected = [0, 0, 10, 31, 1.5, 0.5, 0.001, True, False, None, "08", "a_1", "on", "x:1", "2020-01-01"]
    assert read_yaml(path) == [*expected, "yes", "Off"]


def test_classes_that_are_called_yes_and_no(tmp_path):
    (tmp_path / "dataset.yaml").write_text("classes: {no: 0, yes: 1}")
    assert read_description(tmp_path).classes.names == ("no", "yes")
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\nnearest: yes")
    with pytest.raises(ValueError, match="`nearest` must be true or false, not 'yes'"):
        read_description(tmp_path)


def test_numbers_of_recipes_and_of_the_command_line(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("train: {compile: on, hours: '1:30'}")
    with pytest.raises(ValueError, match=r"r\.yaml: train\.hours: 1:30 is not a decimal number"):
        train_config(recipe)
    recipe.write_text("train: {compile: on}\noptim: {lr: 1e-3}\nout: '010'")
    config = train_config(recipe)
    assert (config.train.compile, config.optim.lr, config.out) == (True, 0.001, "010")
    for option in ("--data.batch_size=1_0", "--train.hours=1:30", "--data.repeat=0b11"):
        with pytest.raises(ValueError, match="is not a decimal number"):
            parse_command(["train", option])
    assert parse_command(["train", "--data.batch_size", "010", "--optim.lr", "1e-3"])[1].data.batch_size == 10


def test_lists_of_the_command_line(capsys):
    with pytest.raises(SystemExit):
        parse_command(["train", "--data.crop_size", "[010, 32]"])
    assert "data.crop_size: [010, 32] is not 2 whole numbers" in capsys.readouterr().err


@pytest.mark.parametrize("tag", ["binary", "set", "omap", "pairs", "timestamp"])
def test_values_of_other_kinds(tmp_path, tag):
    value = {"binary": "aGVsbG8=", "timestamp": "2024-01-01", "set": "{a, b}"}.get(tag, "[a: 1]")
    (tmp_path / "a.yaml").write_text(f"x: 1\nout: !!{tag} {value}\n")
    with pytest.raises(ValueError, match=f"line 2: !!{tag} is not read"):
        read_yaml(tmp_path / "a.yaml")
