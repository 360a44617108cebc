"""The documentation builds without a warning, its links lead somewhere, and the code of docs/extending.md runs."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import tomllib
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
import torch

from rmiseg.cli import main
from rmiseg.config import TrainConfig, registry
from rmiseg.config.commands import COMMANDS
from rmiseg.config.recipes import flat
from support.launch import run as run_processes
from support.plugins import forget_plugins

PROJECT = Path(__file__).parents[1]
PAGES = [
    *(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *PROJECT.glob("docs/**/*.md"),
    *PROJECT.glob("recipes/*.md"),
]
MADE = re.compile(r"docs/(recipes/|reference/commands/|(contributing|changelog|notebook)\.md)")
"""Pages that docs/site/hooks.py makes, links to which the build checks."""
EXTENDING = (PROJECT / "docs" / "extending.md").read_text()
KILLED_AT = 7


@pytest.mark.slow
def test_pages_build_strictly(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    site = tmp_path / "site"
    losses = (site / "reference" / "api" / "losses" / "index.html").read_text()
    assert "num_classes" in losses
    for page in site.rglob("index.html"):
        text = page.read_text()
        assert not re.search(r"<blockquote>\s*<blockquote>", text), f"an example became nested quotes on {page}"
        assert re.search(r'rel="(next|prev)"', text) or page.parent == site, f"{page} leads nowhere"
        assert not re.search(r"<th[^>]*></th>", text), f"a head of a table on {page} says nothing"
        assert "assets/extra.js" in text  # names and keyboard for what the theme leaves out
    for name, command in COMMANDS.items():
        page = (site / "reference" / "commands" / name.replace(" ", "-") / "index.html").read_text()
        for option in dotted_names(command.config):
            assert f'id="{option}"' in page, f"{name} lacks {option}"
    assert "wins and loses" in (site / "results" / "camvid" / "index.html").read_text()
    links = re.findall(r'href="(\S+)" class="md-nav__link.*?<span[^>]*>\s*([^<]*?)\s*<', losses, flags=re.S)
    assert ("../../../recipes/", "Recipes") in links
    assert (site / "recipes" / "camvid-best.yaml").is_file()
    assert (site / "experiments" / "camvid.yaml").is_file()
    assert not (site / "site").exists()


def dotted_names(config: type, prefix: str = "") -> list[str]:
    """The options of a dataclass, and those of its sections."""
    found: list[str] = []
    for name, kind in get_type_hints(config).items():
        found += dotted_names(kind, f"{prefix}{name}.") if is_dataclass(kind) else [prefix + name]
    return found


def test_no_page_says_that_an_index_has_it():
    """Until one has."""
    for page in PAGES:
        assert not re.search(r"""pip install ["']?rmiseg""", page.read_text()), page


def test_readme_is_short():
    assert len((PROJECT / "README.md").read_text().splitlines()) <= 90


def test_the_cost_is_said_alike_everywhere():
    """And first of all on the page of the figures."""
    sentence = (
        "he loss takes about the time of `F.cross_entropy` or less on a CPU and half of its GPU time on an H100, and "
        "0.4 of its memory; a training step takes as long as with cross entropy, and inference does not change"
    )
    for name in ("README.md", "docs/index.md", "docs/performance.md"):
        text = " ".join((PROJECT / name).read_text().split())
        assert sentence in text, name
    assert text.startswith(f"# Performance T{sentence}")


@pytest.mark.slow
def test_commands_of_the_quickstart(tmp_path, monkeypatch):
    """Each block in turn, with a training of three steps."""
    monkeypatch.chdir(tmp_path)
    text = (PROJECT / "docs" / "quickstart.md").read_text().replace("--train.steps 80", "--train.steps 3")
    (tmp_path / "examples").symlink_to(PROJECT / "examples")
    for block in re.findall(r"^```bash\n(.*?)^```$", text, flags=re.S | re.M):
        for line in block.replace("\\\n", "").splitlines():
            program, *arguments = shlex.split(line)
            if program == "python":
                monkeypatch.setattr(sys, "argv", arguments)
                runpy.run_path(arguments[0], run_name="__main__")
            else:
                assert program == "rmiseg"
                assert main([*arguments, *(["--data.workers", "0"] if arguments[0] == "train" else [])]) == 0
    assert len(list(Path("results/overlay").iterdir())) == 40
    assert Path("report.html").is_file()
    exec(re.search(r"```python\n(.*?)```", text, flags=re.S)[1], {})


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(PROJECT / "examples")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cells = json.loads((PROJECT / "examples" / "quickstart.ipynb").read_text())["cells"]
    namespace: dict[str, object] = {}
    with matplotlib.rc_context({"backend": "Agg"}):
        for cell in cells:
            if cell["cell_type"] == "code":
                source = "".join(cell["source"]).replace('"steps": 80', '"steps": 3')
                exec(compile(source, "quickstart.ipynb", "exec"), namespace)
    assert namespace["result"].steps == 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_within_the_project(page):
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.S))
    lost = [
        link for link in links if not re.match(r"https?:|#", link) and not exists(page.parent / link.partition("#")[0])
    ]
    assert lost == []


def exists(path: Path) -> bool:
    relative = os.path.relpath(path, PROJECT)
    return path.exists() or MADE.match(relative) is not None


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
        forget_my_parts()
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
    forget_my_parts()
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
    torch.manual_seed(0)  # by chance the first weights may be so good that the training is over before
    os.chdir(folder)
    runpy.run_path(script, run_name="__main__")


def forget_my_parts() -> None:
    forget_plugins()
    sys.modules.pop("my_parts", None)


OPTIONS_OF_THE_ORIGINAL = """
    resume checkname save_ckpt_steps max_ckpt_nums model_dir output_dir seg_model backbone out_stride batch_size
    accumulation_steps test_batch_size dataset train_split data_dir use_sbd workers base_size crop_size sync_bn
    freeze_bn bn_mom epochs start_epoch init_global_step use_balanced_weights init_lr lr_multiplier slow_start_lr
    slow_start_steps
    lr_scheduler momentum weight_decay nesterov no_cuda gpu_ids main_gpu seed ft eval_interval no_val loss_type
    loss_weight_lambda proc_name rmi_pool_way rmi_pool_size rmi_pool_stride rmi_radius crf_iter_steps local_rank
    world_size dist_backend multiprocessing_distributed
"""


def test_options_of_the_original_have_their_counterparts():
    """Every option of its parser_params.py is named, and what stands beside it exists."""
    page = (PROJECT / "docs" / "fidelity.md").read_text()
    rows = dict(re.findall(r"^\| (`--.*?) \| (.*) \|$", page.partition("Every option of")[2], re.M))
    named = {name for row in rows for name in re.findall(r"--(\w+)", row)}
    assert named == set(OPTIONS_OF_THE_ORIGINAL.split())
    known = flat(asdict(TrainConfig()))
    for option in re.findall(r"--((?:data|model|loss|optim|train)\.[\w.]+)", " ".join(rows.values())):
        assert option in known, option


@pytest.mark.parametrize("page", sorted(PROJECT.glob("docs/results/*.md")), ids=lambda page: page.stem)
def test_pages_of_results_have_every_run(page):
    filled = runpy.run_path(str(PROJECT / "docs" / "results" / "runs.py"))["filled"]
    assert filled(page.read_text(), page.stem) == page.read_text(), "python docs/results/runs.py writes the tables"
    runs = {path.stem for path in (PROJECT / "experiments" / "results" / "recipes" / page.stem).glob("*.json")}
    assert runs <= set(re.findall(r"^\| `(\S+)` \|", page.read_text(), re.MULTILINE))
