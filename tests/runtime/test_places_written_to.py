"""What is in the way of files and folders that are written, said before there is work to lose."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from rmiseg.cli import main
from rmiseg.runtime.files import replacing
from rmiseg.runtime.places import check_places, check_room, said_of, writable_folder


def error_of(work, *arguments) -> str:
    with pytest.raises(OSError, match=r".") as error:
        work(*arguments)
    return said_of(error.value)


def test_files_in_the_place_of_folders_and_the_other_way_round(tmp_path):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    said = f"{tmp_path / 'file'} is a file, where a folder is to be: move it away"
    for path in (tmp_path / "file", tmp_path / "file" / "below" / "that"):
        for work in (lambda path: check_places([path]), check_room, writable_folder, lambda path: path.mkdir()):
            assert error_of(work, path).startswith(said)
    assert f"{tmp_path / 'folder'} is a folder, where" in error_of(check_places, [], [tmp_path / "folder"])
    with pytest.raises(OSError, match=r".") as error, replacing(tmp_path / "folder") as temporary:
        temporary.write_text("new")
    assert said_of(error.value) == f"{tmp_path / 'folder'} is a folder, where a file is to be"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder"]


def test_folders_that_cannot_be_made_or_written_to(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "a"))

    check_room(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    assert f"nothing can be written to {tmp_path / 'a'}: no permission for" in error_of(check_room, tmp_path / "a")
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert f"the folder {tmp_path / 'a'} cannot be made: no permission" in error_of(writable_folder, tmp_path / "a")
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.undo()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert f"no permission to write to the folder {tmp_path}" in error_of(writable_folder, tmp_path)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space is left on the disk of {}"),
        (errno.EROFS, "{} lies where nothing can be written"),
        (errno.EACCES, "no permission for {}"),
        (errno.ENOENT, "{} does not exist, or cannot be made"),
        (errno.EINVAL, "{}: Invalid argument"),
    ],
)
def test_errors_of_the_system_in_words(tmp_path, number, words):
    with pytest.raises(OSError, match=r".") as error, replacing(tmp_path / "a.json") as temporary:
        raise OSError(number, os.strerror(number), str(temporary))
    assert said_of(error.value) == words.format(tmp_path / "a.json")
    with pytest.raises(OSError, match=r".") as error, replacing(tmp_path / "a.json"):
        raise OSError(number, os.strerror(number))
    assert said_of(error.value) == words.format(tmp_path / "a.json")
    assert said_of(ValueError("as it is")) == said_of(OSError("as it is")) == "as it is"


def test_pipes_are_written_to_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with replacing(tmp_path / "pipe") as temporary:
        temporary.write_text("hello")
    assert os.read(reader, 9) == b"hello"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_device_that_is_full(capsys):
    with pytest.raises(OSError, match=r".") as error, replacing(Path("/dev/full")) as temporary:
        temporary.write_text("hello")
    assert said_of(error.value) == "no space is left on the disk of /dev/full"
    assert Path("/dev/full").is_char_device()


def test_commands_say_it_in_one_line(tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "out").write_text("kept")
    assert main(["data", "import", str(tmp_path), "--out", str(tmp_path / "out" / "x"), "--format", "labelme"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'out'} is a file, where a folder is to be")
    assert said.count("\n") == 1
    assert (tmp_path / "out").read_text() == "kept"


@pytest.mark.parametrize("path", ["~/runs", "$HOME/runs", "${HOME}/runs", "%USERPROFILE%/runs"])
def test_no_folder_gets_a_name_that_shells_replace(path, tmp_path, monkeypatch):
    """Such a folder is hard to get rid of: rm -r ~ removes another."""
    monkeypatch.chdir(tmp_path)
    for check in (check_room, writable_folder):
        with pytest.raises(NotADirectoryError, match="Write the whole path"):
            check(Path(path))
    with pytest.raises(NotADirectoryError, match="zero byte"):
        check_room(Path("a\0b"))
    check_room(Path("a~/$b c"))
    assert not list(tmp_path.iterdir())


def test_no_room_for_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    assert f"['{tmp_path / 'none'}'] that can be written to: is the disk full? TMPDIR" in error_of(tempfile.gettempdir)
