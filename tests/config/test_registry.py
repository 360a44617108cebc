"""Components by name: the package's own, and those of plugins."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import dataclass

import pytest

from rmiseg.cli import main
from rmiseg.config import registry
from rmiseg.config.parser import checked_options
from rmiseg.config.registry import BUILT_IN, KINDS, find, load_plugins, names, register
from support.plugins import forget_plugins


@pytest.fixture(autouse=True)
def _forgotten():
    """What a test registers is gone after it."""
    yield
    forget_plugins()


@dataclass
class Options:
    gamma: float = 2.0
    """Exponent."""


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in BUILT_IN[kind]])
def test_every_module_registers_what_the_table_says(kind, name):
    """A new component of the package is its file and a line in `BUILT_IN`."""
    importlib.import_module(BUILT_IN[kind][name])
    assert (kind, name) in registry._components, f"{BUILT_IN[kind][name]} registers no {kind} {name}"
    found = {key for key, each in registry._components.items() if each.origin == BUILT_IN[kind][name]}
    assert all(each in BUILT_IN[key] for key, each in found), "a line in BUILT_IN is missing"


def test_register_and_find():
    assert register("loss", "poly", options=Options)(dict) is dict
    assert find("loss", "poly").make is dict
    assert names("loss")[-1] == "poly"
    register("loss", "mine:")(list)
    assert find("loss", "mine:Anything").make is list
    with pytest.raises(ValueError, match=r"loss polu is none of rmi, ce, .*, poly, mine:NAME; did you mean poly\?"):
        find("loss", "polu")
    with pytest.raises(ValueError, match="the loss 'rmi' exists already, from rmiseg"):
        register("loss", "rmi")(dict)
    with pytest.raises(ValueError, match="there is no kind 'los' of extension; the kinds are dataset, model"):
        register("los", "poly")
    with pytest.raises(TypeError, match="must be a dataclass"):
        register("loss", "other", options=dict)


def test_a_missing_plugin_is_named():
    with pytest.raises(ValueError, match="the run was made with the plugin theirs: give --plugin theirs"):
        find("model", "their-net", ["theirs"])


PLUGIN = """
from rmiseg import register

@register("loss", "zero")
def zero(num_classes):
    return lambda logits, target: 0 * logits.mean()
"""


@pytest.mark.parametrize("way", ["module", "file"])
def test_plugins_of_the_command_line(tmp_path, monkeypatch, capsys, way):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"zeros_{way}.py").write_text(PLUGIN.replace('"zero"', f'"zero-{way}"'))
    plugin = f"zeros_{way}" if way == "module" else f"./zeros_{way}.py"
    with pytest.raises(SystemExit):
        main(["train", "--plugin", plugin, "--help"])
    assert f"zero-{way}." in " ".join(capsys.readouterr().out.split())
    assert str(tmp_path) not in sys.path


def test_plugins_that_fail(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--plugin", "nowhere"]) == 1
    assert "--plugin nowhere: No module named 'nowhere'" in capsys.readouterr().err
    assert main(["train", "--plugin", "no.py"]) == 1
    assert "there is no file no.py" in capsys.readouterr().err
    assert main(["train", "--plugin"]) == 1
    assert "--plugin needs the name" in capsys.readouterr().err


def test_plugins_of_installed_packages(tmp_path, monkeypatch):
    """By entry points, as pip writes them down."""
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rmiseg.plugins]\ntheirs = theirs_plugin\n")
    (tmp_path / "theirs_plugin.py").write_text(PLUGIN.replace('"zero"', '"zero-installed"'))
    monkeypatch.syspath_prepend(tmp_path)
    load_plugins()
    assert "zero-installed" in names("loss")
    assert registry.loaded_plugins()[-1] == "theirs_plugin"
    assert registry.plugin_arguments() == []


def test_the_registry_needs_nothing():
    code = "import sys, rmiseg.config.registry; print([m for m in ('torch', 'numpy', 'yaml') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@dataclass
class Several:
    sigma: float
    """Without a default."""
    names: tuple[str, ...] = ("a",)
    """Some."""
    inner: int | None = None
    """Or none."""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sigma": "wide"}, r"loss\.options: sigma: wide is not a number"),
        ({"sigma": 1, "inner": 1.5}, r"loss\.options: inner: 1\.5 is not a whole number"),
        ({"sigma": 1, "gama": 2}, r"loss\.options\.gama: the loss blur has no option of that name; it has sigma"),
        ({}, r"loss\.options: sigma is missing"),
    ],
)
def test_own_options_have_types(given, message):
    register("loss", "blur", options=Several)(dict)
    with pytest.raises(ValueError, match=message):
        checked_options(find("loss", "blur"), given, "loss.options")


def test_own_options_with_their_defaults():
    register("loss", "blur", options=Several)(dict)
    options = checked_options(find("loss", "blur"), {"sigma": 2, "names": ["x", "y"]}, "loss.options")
    assert options == {"sigma": 2.0, "names": ("x", "y"), "inner": None}
    register("loss", "bare")(list)
    assert checked_options(find("loss", "bare"), {}, "loss.options") == {}
    with pytest.raises(ValueError, match="the loss bare has no option of that name; it has none"):
        checked_options(find("loss", "bare"), {"a": 1}, "loss.options")
