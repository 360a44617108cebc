"""The package as users install it."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import rmiseg
from rmiseg.cli import main
from rmiseg.kernels import native

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[1]
WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.yml"))

CODE = """
import time, torch
start = time.process_time()
from rmiseg import RMILoss
print(time.process_time() - start)
"""


def test_the_losses_are_imported_quickly():
    """In under 0.3 s of processor time beyond torch."""
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 0.3


def test_types_are_published():
    assert (Path(rmiseg.__file__).parent / "py.typed").is_file()


def test_a_source_tree_can_be_imported_without_installation(tmp_path):
    """-S: no installed packages, so no version, and no torch, which only the losses need."""
    # Without what building it may have left beside it, which names a version.
    shutil.copytree(PROJECT / "src" / "rmiseg", tmp_path / "rmiseg", ignore=shutil.ignore_patterns("*.so"))
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import rmiseg; print(rmiseg.__version__)"
    run = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "0+unknown\n"


def test_version_names_what_computes_the_loss(capsys):
    assert main(["--version"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"rmiseg {rmiseg.__version__}"
    assert [line.partition(" ")[0] for line in lines[1:]] == ["Python", "PyTorch", "CPU:", "GPU:"]
    assert ("compiled code" in lines[3]) == native.is_available()


def test_version_answers_where_only_the_losses_are_installed():
    code = (
        "import sys; sys.modules['jsonargparse'] = None; sys.modules['docstring_parser'] = None\n"
        "from rmiseg.cli import main; sys.exit(main(['--version']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("rmiseg ")


def test_the_check_of_an_installation():
    script = str(PROJECT / "scripts" / "check_install.py")
    expected = "require" if native.is_available() else "none"
    run = subprocess.run([sys.executable, script, "--native", expected], capture_output=True, text=True, check=True)
    assert "The losses work" in run.stdout
    other = {"require": "none", "none": "require"}[expected]
    run = subprocess.run([sys.executable, script, "--native", other], capture_output=True, text=True, check=False)
    assert run.returncode == 1


def test_the_files_of_a_release_name_one_version():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]


def test_a_release_has_a_machine_for_each_wheel_and_waits_for_all():
    wheels = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]["build"].split()
    jobs = yaml.safe_load((PROJECT / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    systems = {"manylinux": "ubuntu", "macosx": "macos", "win": "windows"}
    machines = [machine.partition("-")[0] for machine in jobs["wheels"]["strategy"]["matrix"]["machine"]]
    assert machines == [systems[wheel.split("-")[1].split("_")[0]] for wheel in wheels]
    assert {"publish", *jobs["publish"]["needs"]} == set(jobs)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_what_is_there(path):
    """Every `make` target, script and extra that a workflow names."""
    targets = re.findall(r"^([\w./%-]+):", (PROJECT / "Makefile").read_text(), re.M)
    text = path.read_text()
    assert yaml.safe_load(text)["jobs"]
    for target in re.findall(r"make ([\w./-]+)", text):
        assert target in targets or (target.startswith(".venv/") and ".venv/%" in targets)
    for script in re.findall(r"(?:scripts|tests)/[\w./]+", text):
        assert (PROJECT / script).exists()
