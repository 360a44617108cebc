"""A list names images of its data set, and no other files."""

import pytest

from miniatures import write_camvid, write_image, write_lines, write_mask
from rmiseg.data import load_split, scan_split


@pytest.mark.parametrize("line", ["../secret.png trainannot/x.png", "train/a.png a/../secret.png", "/x.png /y.png"])
def test_camvid_lists_that_lead_outside(tmp_path, line):
    root = write_camvid(tmp_path / "camvid")
    write_image(tmp_path / "secret.png")
    write_mask(tmp_path / "camvid" / "trainannot" / "x.png")
    write_lines(root / "train.txt", line)
    split = scan_split("camvid", str(root), "train")
    assert split.samples == ()
    assert "does not name a folder and a file in" in " ".join(split.problems)
    with pytest.raises(ValueError, match="line 1"):
        load_split("camvid", str(root), "train")
