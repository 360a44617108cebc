"""Initial weights of another model, and of its classes by their names."""

from functools import partial

import pytest
import torch
from rich.console import Console
from torch import nn

from rmiseg.config import DataConfig, ModelConfig
from rmiseg.data import ClassTable
from rmiseg.inference.checkpoint import Checkpoint, save_checkpoint
from rmiseg.models import build_model
from rmiseg.training.initial import class_rows, initialize, with_rows_by_name


def test_initial_weights_from_another_run(tmp_path, capsys):
    options = {"backbone": "test_efficientnet", "weights": "none"}
    source = build_model("deeplabv3plus", num_classes=2, **options)
    classes = ClassTable(("a", "b"), (0, 1), (255,), ((0, 0, 0), (255, 0, 0)))
    path = tmp_path / "a.pt"
    save_checkpoint(path, Checkpoint(source.state_dict(), ModelConfig(**options), DataConfig(), classes, 1, {}))
    target = build_model("deeplabv3plus", num_classes=3, **options)
    initialize(target, path, Console(width=400))
    printed = capsys.readouterr().out
    assert f"{len(source.state_dict()) - 2} of {len(target.state_dict())} tensors" in printed
    assert "of another shape there" in printed
    different = [n for n, t in target.state_dict().items() if not torch.equal(t, source.state_dict()[n])]
    assert len(different) == 2
    same = build_model("deeplabv3plus", num_classes=2, **options)
    initialize(same, path, Console(width=400), ("b", "a"))  # a network given in Python: nothing shows where classes are
    assert "are a, b, and those of the data b, a: each begins as the one in its place" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"init: no weights of .*a\.pt fit the model"):
        initialize(nn.Linear(3, 4), path, Console())


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("b", "a"), "Classes that begin as those of the same name: b, a\n"),
        (("b", "new"), "Classes that begin as those of the same name: b; new: new; there alone: a\n"),
        (("new", "b", "a"), "Classes that begin as those of the same name: b, a; new: new\n"),
        (("b",), "Classes that begin as those of the same name: b; there alone: a\n"),
        (("a", "b"), None),
        (("x", "y"), "each begins as the one in its place"),
    ],
)
@pytest.mark.parametrize("name", ["deeplabv3plus", "pspnet"])
def test_initial_weights_of_classes_go_by_their_names(name, names, said, tmp_path, capsys):
    options = {"backbone": "test_efficientnet", "weights": "none"}
    source = build_model(name, num_classes=2, **options)
    table = ClassTable(("a", "b"), (0, 1), (255,), ((0, 0, 0), (255, 0, 0)))
    content = Checkpoint(source.state_dict(), ModelConfig(name, **options), DataConfig(), table, 1, {})
    save_checkpoint(tmp_path / "a.pt", content)
    target = build_model(name, num_classes=len(names), **options)
    own = {key: value.clone() for key, value in target.state_dict().items()}
    initialize(target, tmp_path / "a.pt", Console(width=400), names, partial(build_model, name, **options))
    printed = capsys.readouterr().out
    assert said in printed if said else "lasses" not in printed
    assert "another shape" not in printed
    ends = (".weight", ".bias")
    rows = [key for key in own if key.startswith(("classifier", "auxiliary")) and key.endswith(ends)]
    rows = [key for key in rows if len(own[key]) == len(names)]
    assert len(rows) == (2 if name == "deeplabv3plus" else 4)  # pspnet has an auxiliary classifier
    for key in rows:
        for place, each in enumerate(names):
            theirs = {"a": 0, "b": 1}.get(each, place if names == ("x", "y") else None)
            expected = own[key][place] if theirs is None else source.state_dict()[key][theirs]
            assert torch.equal(target.state_dict()[key][place], expected), (key, each)


def test_further_rows_behind_the_classes_stay_behind_them():
    """Such as that of "no object" in models that classify masks."""
    model, larger = nn.Linear(2, 3 + 1), nn.Linear(2, 4 + 1)
    rows = class_rows(model, larger)
    assert rows == {"weight", "bias"}
    weights = {"bias": torch.tensor([10.0, 20.0, 90.0]), "weight": torch.zeros(3, 2)}
    found = with_rows_by_name(weights, model, rows, ("a", "b"), ("b", "new", "a"))
    assert found["bias"].tolist() == [20, pytest.approx(model.bias[1].item()), 10, 90]
    weights["weight"] = torch.zeros(3, 5)  # of another network
    assert with_rows_by_name(weights, model, rows, ("a", "b"), ("b", "new", "a")) == {}


@pytest.mark.parametrize("needs_numbers", [False, True])
def test_the_model_that_shows_where_classes_are_has_no_numbers_unless_it_needs_some(needs_numbers, tmp_path):
    class Small(nn.Module):
        def __init__(self, num_classes):
            super().__init__()
            self.classifier = nn.Conv2d(3, num_classes, 1)
            self.largest = self.classifier.weight.max().item() if needs_numbers else 0
            devices.append(self.classifier.weight.device.type)

    devices = []
    table = ClassTable(("a", "b"), (0, 1), (255,), ((0, 0, 0), (255, 0, 0)))
    source, target = Small(2), Small(2)
    save_checkpoint(tmp_path / "a.pt", Checkpoint(source.state_dict(), ModelConfig(), DataConfig(), table, 1, {}))
    devices.clear()
    before = torch.get_rng_state()
    initialize(target, tmp_path / "a.pt", Console(quiet=True), ("b", "a"), Small)
    assert devices == ["cpu" if needs_numbers else "meta"]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(target.classifier.weight, source.classifier.weight[[1, 0]])


def test_no_rows_of_classes_where_their_number_shows_elsewhere_too():
    assert class_rows(nn.Linear(3, 3), nn.Linear(4, 4)) == set()
    assert class_rows(nn.Linear(3, 6), nn.Linear(3, 8)) == set()
