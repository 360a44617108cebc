"""Work that is spread over processes."""

import os
import signal

import pytest

from rmiseg.runtime.cores import made_by


class Squares:
    def __init__(self, count, broken=None, deadly=None):
        self.count, self.broken, self.deadly = count, broken, deadly

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index == self.broken:
            raise FileNotFoundError(f"no image {index}")
        if index == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return index**2, os.getpid()


@pytest.mark.parametrize("processes", [0, 1, 3])
def test_items_come_in_their_order(processes):
    made = list(made_by(Squares(40), processes))
    assert [value for value, _ in made] == [index**2 for index in range(40)]
    assert ({process for _, process in made} == {os.getpid()}) == (processes == 0)


@pytest.mark.parametrize("processes", [0, 2])
def test_an_error_is_raised_as_it_is(processes):
    with pytest.raises(FileNotFoundError, match="no image 3"):
        list(made_by(Squares(40, broken=3), processes))


def test_a_killed_process_is_told():
    with pytest.raises(ChildProcessError, match="was it killed, or the memory used up"):
        list(made_by(Squares(40, deadly=7), 2))


def test_what_nobody_waits_for_is_not_made():
    made = made_by(Squares(10**9), 2)
    assert next(made)[0] == 0
    made.close()
