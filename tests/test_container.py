"""The files of the container name what exists; `docker/check.sh` builds it, where there are tools for that."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from rmiseg.config.commands import COMMANDS

PROJECT = Path(__file__).parents[1]
DOCKERFILE = (PROJECT / "docker" / "Dockerfile").read_text().replace("\\\n", "")
STEPS = [line.split(maxsplit=1) for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]
EXTRAS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def arguments() -> dict[str, str]:
    return dict(value.split("=", 1) for step, value in STEPS if step == "ARG")


def test_what_is_copied_exists_and_is_not_left_out():
    lines = (PROJECT / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    copied = [source for step, value in STEPS if step == "COPY" for source in value.split()[:-1]]
    assert len(copied) == 10
    for source in copied:
        assert (PROJECT / source).exists(), source
        last = [rule for rule in rules if fnmatch(source, rule.removeprefix("!"))][-1]
        assert last == f"!{source}"
    builds = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert {builds["readme"], *builds["license-files"], "setup.py", "MANIFEST.in"} <= set(copied)


def test_extras_are_those_of_the_package():
    extras = arguments()["EXTRAS"].split(",")
    assert set(extras) <= set(EXTRAS)
    assert extras == sorted(extras)
    if "crf" in extras:  # its source knows no later Python, and is compiled in the first stage
        assert arguments()["PYTHON"] in ("3.11", "3.12")
        pinned = next(each for each in EXTRAS["crf"] if each.startswith("pydensecrf"))
        assert f'"{pinned}"' in DOCKERFILE
    table = (PROJECT / "docs" / "install.md").read_text()
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.M) for name in re.findall(r"`(\w+)`", row)}
    assert named | {"train", "bench", "docs", "examples", "test"} == set(EXTRAS)


def test_runs_as_no_root_and_keeps_layers_small():
    users = [value for step, value in STEPS if step == "USER"]
    assert users == ["rmiseg"]
    for step, value in STEPS:
        if step == "RUN" and "apt-get install" in value:
            assert "--no-install-recommends" in value
            assert "rm -rf /var/lib/apt/lists/*" in value
        if step == "RUN" and re.search(r"pip (install|wheel)", value):
            assert "--no-cache-dir" in value


def test_compose_builds_the_same_image_and_runs_commands_that_exist():
    compose = yaml.safe_load((PROJECT / "docker" / "compose.yaml").read_text())
    assert set(compose["services"]) == {"train", "train-cpu", "tensorboard"}
    for name, service in compose["services"].items():
        assert (PROJECT / service["build"]["dockerfile"]).exists()
        assert set(service["build"].get("args", {})) <= set(arguments())
        if name == "tensorboard":
            assert service["entrypoint"][0] == "tensorboard"
            assert any(each.startswith("tensorboard") for each in EXTRAS["train"])
        else:
            assert service["command"][0] in COMMANDS


@pytest.mark.nightly
@pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("debootstrap", "buildah"))),
    reason="needs root, debootstrap, buildah",
)
def test_image_is_built_and_trains():
    subprocess.run([PROJECT / "docker" / "check.sh"], check=True, timeout=3600)
