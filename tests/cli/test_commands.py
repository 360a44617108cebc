"""The commands that only look: `rmiseg data check` and `models`."""

from __future__ import annotations

import re
import shutil

import pytest

from rmiseg.cli import main


def test_alone_it_shows_its_help(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    assert "evaluate" in capsys.readouterr().out


def test_data_check(shapes, tmp_path, capsys):
    assert main(["data", "check", "--root", str(shapes), "--workers", "0"]) == 0
    root = tmp_path / "data"
    shutil.copytree(shapes, root)
    (root / "masks" / "shape02.png").unlink()
    assert main(["data", "check", "--root", str(root), "--workers", "0"]) == 1
    assert "shape02" in capsys.readouterr().out


@pytest.mark.slow
def test_models(capsys):
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    for part in ("deeplabv3plus", "arXiv:1802.02611", "pspnet", "--backbones"):
        assert part in text
    assert main(["models", "--backbones", "mobilenetv3_small_0*"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"mobilenetv3_small_050 .* 0\.\d .* 8, 16, 32 .* all", text)
    assert "2 of 2 timm models" in text
    assert main(["models", "--backbones", "qqq"]) == 1
