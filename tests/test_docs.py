"""The documentation builds without a warning, its links lead somewhere, and the code of docs/extending.md runs."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rmiseg.cli import main
from rmiseg.config import registry
from support.launch import run as run_processes

PROJECT = Path(__file__).parents[1]
PAGES = [PROJECT / "README.md", *PROJECT.glob("docs/*.md"), *PROJECT.glob("recipes/*.md")]
EXTENDING = (PROJECT / "docs" / "extending.md").read_text()
KILLED_AT = 7


@pytest.mark.slow
def test_pages_build_strictly(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    api = (tmp_path / "site" / "api" / "index.html").read_text()
    assert "num_classes" in api


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_within_the_project(page):
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.S))
    lost = [
        link
        for link in links
        if not re.match(r"https?:|#", link) and not (page.parent / link.partition("#")[0]).exists()
    ]
    assert lost == []


@pytest.mark.slow
def test_own_parts_as_the_page_has_them(tmp_path, monkeypatch, capsys):
    """Every block in turn, in one folder: files are written, other Python is run, and so are commands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    namespace: dict[str, object] = {}
    try:
        for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", EXTENDING, flags=re.S | re.M):
            file = re.match(r"# (\w+\.(?:py|yaml))\n", text)
            if file:
                with open(file[1], "a") as stream:
                    stream.write(f"{text}\n\n")
            elif language == "python":
                exec(compile(text, "docs/extending.md", "exec"), namespace)
            elif language == "bash":
                for command in text.splitlines():
                    run_command(command, capsys)
            else:
                assert list(tomllib.loads(text)["project"]["entry-points"]) == [registry.ENTRY_POINTS]
    finally:
        forget_plugins()
        sys.modules.pop("train", None)
    assert len(list(Path("results").rglob("*.png"))) == 8  # of 4 images two each
    assert Path("runs/pairs/export/weights.npz").is_file()
    assert '"patience/waited"' in Path("runs/pairs.jsonl").read_text()
    assert '"train/plus smp:Dice"' in Path("runs/plus.jsonl").read_text()


def run_command(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a command as in a process of its own; if it fails, the page says with which words."""
    program, *arguments = shlex.split(line)
    if program == "python":
        assert run_processes(run_killed, arguments[0], str(Path.cwd())) == [-signal.SIGKILL]
        before = curves()
        assert {row[0] for row in before} >= {"1", str(KILLED_AT - 2)}
        runpy.run_path(arguments[0], run_name="__main__")
        saved = [row for row in before if int(row[0]) < KILLED_AT - 1]
        assert curves()[: len(saved)] == saved, "it began anew"
        assert "runs/discs 0.9" in capsys.readouterr().out
        return
    assert program == "rmiseg"
    forget_plugins()
    status = main(arguments)
    error = capsys.readouterr().err
    assert status == 0 or error.strip() in EXTENDING, f"{line}\n{error}"


def curves() -> list[list[str]]:
    return [row.split(",") for row in Path("runs/discs/curves.csv").read_text().splitlines()[1:]]


def run_killed(script: str, folder: str) -> None:
    """Run a script that is killed before its training is over, at an odd step: states are saved at even ones."""
    from rmiseg.training.loop import TrainingRun

    outcomes = TrainingRun._outcomes

    def killed_between(run, groups):
        for group in groups:
            if run.state.step == KILLED_AT:
                run.curves.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            yield group

    TrainingRun._outcomes = lambda run, groups: outcomes(run, killed_between(run, groups))
    os.chdir(folder)
    runpy.run_path(script, run_name="__main__")


def forget_plugins() -> None:
    for key, component in list(registry._components.items()):
        if not component.origin.startswith("rmiseg."):
            del registry._components[key]
    registry._plugins.clear()
    sys.modules.pop("my_parts", None)
