"""The table of curves of a run, whole, cut short and damaged."""

from __future__ import annotations

import pytest

from rmiseg.training.loggers.table import TableLogger, read_table


def test_a_last_line_that_was_cut_short_is_left_out(tmp_path):
    path = tmp_path / "curves.csv"
    path.write_text("step,curve,value\n1,loss,2.5\n2,loss,nan\n3,lo")
    assert list(read_table(path)) == ["loss"]
    assert read_table(path)["loss"][0] == [1, 2]
    path.write_text("")
    assert read_table(path) == {}


@pytest.mark.parametrize("content", [b"\xff\0" * 9, b"a,b\n1,2\n", b"step,curve,value\n1,loss,much\n"])
def test_what_is_no_table_is_told_and_not_overwritten(tmp_path, content):
    path = tmp_path / "curves.csv"
    path.write_bytes(content + b"\n")
    for read in (lambda: read_table(path), lambda: TableLogger().open(tmp_path, {}, 5)):
        with pytest.raises(ValueError, match=r"curves.csv is no table of curves \(.*put a copy of it back, or move it"):
            read()
    assert path.read_bytes() == content + b"\n"


def test_tables_that_somebody_edited_are_in_the_order_of_steps(tmp_path):
    path = tmp_path / "curves.csv"
    path.write_bytes("\ufeffstep,curve,value\r\n3,loss,3\r\n1,loss,1\r\n2,loss,9\r\n2,loss,2\r\n1,iou,0\r\n".encode())
    assert read_table(path)["loss"] == ([1, 2, 3], [1, 2, 3])
    logger = TableLogger()
    logger.open(tmp_path, {}, 3)
    logger.close()
    assert path.read_text().split() == ["step,curve,value", "1,loss,1", "1,iou,0", "2,loss,2"]
