"""`rmiseg bench` as a user runs it, on batches so small that the figures mean nothing."""

import csv
import json
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image

from miniatures import write_shapes
from rmiseg.benchmarks import candidates, forms, loss, measure
from rmiseg.benchmarks.candidates import CANDIDATES
from rmiseg.benchmarks.references import references
from rmiseg.cli import main
from rmiseg.config import DataConfig
from rmiseg.data import IGNORE_INDEX, load_split
from rmiseg.data.transforms.pipeline import normalize
from rmiseg.training.assembly import train_dataset

pytestmark = pytest.mark.slow

QUICK = ["--device", "cpu", "--shapes", "[1x3x40x40]", "--strides", "[1]", "--pool_sizes", "[2]", "--runs", "1"]


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def bench(out: Path, *options: str) -> list[dict[str, str]]:
    assert main(["bench", "loss", *QUICK, "--out", str(out), *options]) == 0
    return rows_of(out)


def test_forms(tmp_path, capsys):
    options = ["--out", str(tmp_path), "--threads", "1", "--seconds", "0"]
    assert main(["bench", "forms", *options, "--only", "smallest"]) == 0
    found = json.loads((tmp_path / "forms.json").read_text())
    (case,) = found
    assert case == "smallest, 1x2x32x32"
    times = found[case]["1"]["milliseconds"]
    assert found[case]["1"]["ratio"] == pytest.approx(times["RMI"] / times["PyTorch"])
    assert f"| {case} | 2 | {times['RMI']:.3g} |" in (tmp_path / "forms.md").read_text()
    assert case in capsys.readouterr().out
    assert main(["bench", "forms", *options, "--only", "nothing"]) == 1
    assert "no form has 'nothing' in its name; there are class ids, default" in capsys.readouterr().err


@pytest.mark.parametrize("make", [make for make, _ in forms.cases()], ids=[title for _, title in forms.cases()])
def test_every_form_is_a_loss(make, monkeypatch):
    """Each on a small batch of the same kind, with the gradient of each loss in it."""
    name, goal, shape = make.args
    divisor = 4 if len(shape) == 5 else 8 if shape[-1] > 100 else 1
    case = make.func(name, goal, (1, shape[1], *(side // divisor for side in shape[2:])), **make.keywords)
    if case.name.startswith("region size 10"):
        return  # for which it is too small
    for each in case.losses.values():
        logits = case.logits.clone().requires_grad_()
        each(logits).backward()
        assert logits.grad.isfinite().all()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The default losses, as far as they are installed, in six panels."""
    out = tmp_path_factory.mktemp("bench")
    options = ["--shapes", "[2x3x40x48, 1x5x33x33]", "--strides", "[1,4]", "--pool_sizes", "[4,2]", "--runs", "3"]
    return out, bench(out, *options)


def test_every_measurement_has_a_row(results):
    _, rows = results
    names = {name for name, candidate in CANDIDATES.items() if candidate.default}
    names = {name for name in names if (p := CANDIDATES[name].package) is None or candidates.is_installed(p)}
    found = {(r["shape"], r["stride"], r["loss"], r["pool_size"], r["pass"]) for r in rows}
    assert len(found) == len(rows)
    assert found == {
        (shape, stride, name, pool, which)
        for shape in ("2x3x40x48", "1x5x33x33")
        for stride in ("1", "4")
        for name in names
        for pool in ((("4", "2") if stride == "1" else ("4",)) if CANDIDATES[name].pools else ("",))
        for which in ("forward", "backward", "both")
    }


def test_figures_are_plausible(results):
    _, rows = results
    for row in rows:
        assert row["problem"] == ""
        assert row["runs"] == "3"
        assert 0 < float(row["lowest_ms"]) <= float(row["median_ms"]) <= float(row["highest_ms"])
        assert (row["torch"], row["device"], row["dtype"]) == (torch.__version__, "cpu", "float32")
        assert row["hardware"]
        assert row["threads"] == str(torch.get_num_threads())
        assert row["date"][:2] == "20"
        if row["loss"] == "cross-entropy":
            assert float(row["time_ratio"]) == 1
    by_case = {(r["shape"], r["stride"], r["loss"], r["pool_size"], r["pass"]): r for r in rows}
    for (*case, which), row in by_case.items():
        ms = {p: float(by_case[(*case, p)]["median_ms"]) for p in ("forward", "backward", "both")}
        assert max(ms["forward"], ms["backward"]) < ms["both"]
        reference = float(by_case[(row["shape"], row["stride"], "cross-entropy", "", which)]["median_ms"])
        assert float(row["time_ratio"]) == pytest.approx(float(row["median_ms"]) / reference, rel=0.01, abs=1e-3)


def test_picture_is_drawn(results):
    out, _ = results
    with Image.open(out / "speed.png") as picture:
        width, height = picture.size
        assert width > 1000
        assert height > 400
        assert (11, 114, 133) in {color for _, color in picture.convert("RGB").getcolors(maxcolors=1 << 24)}
    assert {path.name for path in out.iterdir()} == {"results.csv", "speed.png"}


@pytest.mark.skipif(not measure.can_measure_memory(torch.device("cpu")), reason="needs Linux")
def test_memory_is_that_of_the_tensors():
    """A loss that makes one known tensor, and the gradient: so much, and not more."""
    job = measure.Job("cross-entropy", (4, 16, 256, 256), 1, 4, 3, "float32", "cpu", 1)
    megabytes = 4 * 16 * 256 * 256 * 4 / 1e6  # of one tensor of the size of the logits
    found = measure.measure_apart(job, [])
    assert found.problem is None
    # Forward makes log-probabilities; backward their gradient and that of the logits.
    assert found.memory.forward / 1e6 == pytest.approx(megabytes, rel=0.1, abs=2)
    assert found.memory.both / 1e6 == pytest.approx(3 * megabytes, rel=0.1, abs=2)


def test_missing_packages_are_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(candidates, "is_installed", lambda package: False)
    found = {row["loss"] for row in bench(tmp_path)}
    assert found == {name for name, c in CANDIDATES.items() if c.default and c.package is None}
    printed = " ".join(capsys.readouterr().out.split())
    assert "Without rmi-pytorch: rmi-pytorch is not installed (pip install rmi-pytorch)" in printed
    assert "Without smp-dice, smp-lovasz: segmentation-models-pytorch is not installed" in printed
    message = error_of(["--losses", "[smp-dice]"], tmp_path, capsys)
    assert "smp-dice" in message
    assert "pip install segmentation-models-pytorch" in message


def test_what_does_not_run_is_a_row_that_says_why(tmp_path, monkeypatch, capsys):
    def no_compiler(*_, **__):
        raise RuntimeError("no C++ compiler\nmore about it")

    monkeypatch.setattr(torch, "compile", no_compiler)
    monkeypatch.setattr(loss, "can_measure_memory", lambda device: False)  # and therefore all in this process
    rows = bench(tmp_path, "--losses", "[rmi-compiled,rmi]")
    assert {row["loss"]: row["problem"] for row in rows} == {
        "cross-entropy": "",
        "rmi-compiled": "RuntimeError: no C++ compiler",
        "rmi": "",
    }
    assert {row["loss"] for row in rows if row["median_ms"]} == {"cross-entropy", "rmi"}
    assert {row["peak_bytes"] for row in rows} == {""}
    printed = " ".join(capsys.readouterr().out.split())
    assert "RMI compiled, pool 2: RuntimeError: no C++ compiler" in printed
    assert "Memory is not measured" in printed
    assert (tmp_path / "speed.png").exists()


def test_error_in_the_memory_process_is_told(tmp_path):
    rows = bench(tmp_path, "--losses", "[rmi-chunked,ce]", "--shapes", "[1x3x3x3]")
    problems = {row["loss"]: row["problem"] for row in rows}
    assert "too small for regions of 3 x 3" in problems["rmi-chunked"]
    assert problems["ce"] == ""


def test_half_precision_runs_under_autocast(tmp_path):
    rows = bench(tmp_path, "--dtype", "bfloat16", "--losses", "[rmi]")
    assert {(row["loss"], row["dtype"], row["problem"]) for row in rows} == {
        ("cross-entropy", "bfloat16", ""),
        ("rmi", "bfloat16", ""),
    }


def test_slow_losses_run_less_often(tmp_path):
    rows = bench(tmp_path, "--runs", "5", "--max_seconds", "0", "--losses", "[ce]")
    assert {row["runs"] for row in rows} == {"3"}


def test_interrupted_benchmark_leaves_what_it_has(tmp_path, monkeypatch, capsys):
    real, calls = loss.run_once, []

    def interrupted_later(*arguments):
        calls.append(arguments)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(loss, "run_once", interrupted_later)
    before = torch.get_num_threads()
    arguments = [*QUICK, "--losses", "[ce,bce]", "--strides", "[1,4]", "--threads", "2", "--out", str(tmp_path)]
    assert main(["bench", *arguments]) == 130  # `bench` alone is `bench loss`
    assert [(r["stride"], r["loss"]) for r in rows_of(tmp_path)[::3]] == [
        ("1", "cross-entropy"),
        ("1", "ce"),
        ("1", "bce"),
        ("4", "cross-entropy"),
        ("4", "ce"),
    ]
    assert "measured so far" in capsys.readouterr().out
    assert torch.get_num_threads() == before


def error_of(options: list[str], out: Path, capsys) -> str:
    assert main(["bench", "loss", *QUICK, "--out", str(out), *options]) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--losses", "[rmi,focal]"], "there is no focal; there are cross-entropy, rmi, rmi-native"),
        (["--shapes", "[4x21x513]"], "'4x21x513' is not of the form NxCxHxW"),
        (["--shapes", "[]"], "shapes must not be empty"),
        (["--strides", "[0]"], "strides must be at least 1, got 0"),
        (["--pool_sizes", "[4,-2]"], "pool_sizes must be at least 1, got -2"),
        (["--runs", "0"], "runs must be at least 1, got 0"),
        (["--threads", "0"], "threads must be at least 1, got 0"),
        (["--device", "cuda:9"], "device 'cuda:9'"),
    ],
)
def test_bad_options(options, message, tmp_path, capsys):
    out = tmp_path / "new"
    assert message in error_of(options, out, capsys)
    assert not out.exists()


def test_bad_types_are_usage_errors(capsys):
    for usage in (["--dtype", "float8"], ["--strides", "four"], ["--runs", "many"]):
        with pytest.raises(SystemExit) as stop:
            main(["bench", *usage])
        assert stop.value.code == 2
        assert usage[0].removeprefix("--") in capsys.readouterr().err


def test_without_matplotlib_nothing_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    monkeypatch.delitem(sys.modules, "rmiseg.benchmarks.picture", raising=False)
    assert 'pip install ".[bench]"' in error_of([], tmp_path / "new", capsys)
    assert not (tmp_path / "new").exists()
    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert any(name.startswith("matplotlib") for name in extras["optional-dependencies"]["bench"])


# bench data


RECIPE = """
data: {root: ROOT, crop_size: [48, 48], batch_size: 4, workers: WORKERS}
model: {backbone: test_efficientnet, weights: none}
loss: {name: rmi, class_weights: balanced}
train: {steps: 100}
"""


def write_recipe(path: Path, root: Path, workers: int = 0) -> Path:
    path.write_text(RECIPE.replace("ROOT", str(root)).replace("WORKERS", str(workers)))
    return path


@pytest.mark.parametrize("workers", [0, 1])
def test_data_benchmark(tmp_path, capsys, workers):
    recipe = write_recipe(tmp_path / "recipe.yaml", write_shapes(tmp_path / "data", 12), workers)
    assert main(["bench", "data", str(recipe), "--rounds", "1", "--batches", "2"]) == 0
    rows = {line.split("│")[1].strip(): line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line}
    ways = ["rmiseg", "torchvision, PIL images", "torchvision, tensors", "OpenCV", "albumentations"]
    assert all(float(rows[name][2]) > 0 for name in ("training", *(f"loading: {way}" for way in ways)))
    assert 0 <= int(rows["training"][3].strip(" %")) <= 100


@pytest.mark.parametrize("jitter", [0.0, 0.4])
def test_both_data_pipelines_do_the_same(tmp_path, jitter):
    """The same seeds give the same sizes, and pictures alike on the average."""
    data = DataConfig(root=str(write_shapes(tmp_path, 12)), crop_size=(40, 56), color_jitter=jitter)
    split = load_split("folder", data.root, "train")
    own = train_dataset(split, data)
    for name, reference in references(split, data).items():
        if jitter and name == "OpenCV":
            continue  # which has none
        if name == "albumentations":
            reference.pipeline.set_random_seed(0)  # of its own, apart from the seeds of items
        items = [[dataset[0, seed] for seed in range(60)] for dataset in (own, reference)]
        means = []
        for found in items:
            assert all(item["image"].shape == (3, 40, 56) and item["mask"].shape == (40, 56) for item in found)
            images = torch.stack([item["image"] for item in found])
            if images.dtype == torch.uint8:
                images = normalize(images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
            valid = torch.stack([item["mask"] != IGNORE_INDEX for item in found])
            means.append([images.mean(), valid.float().mean()])
        assert torch.tensor(means[0]).sub(torch.tensor(means[1])).abs().max() < 0.15


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--rounds", "0"], "rounds must be at least 1, not 0"), (["--workers", "-1"], "workers must be 0 or more")],
)
def test_data_benchmark_refuses(tmp_path, capsys, options, message):
    recipe = write_recipe(tmp_path / "recipe.yaml", write_shapes(tmp_path / "data", 12))
    assert main(["bench", "data", str(recipe), *options]) == 1
    assert message in capsys.readouterr().err


def test_data_benchmark_without_recipe(tmp_path, capsys):
    assert main(["bench", "data", str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml does not exist" in capsys.readouterr().err
