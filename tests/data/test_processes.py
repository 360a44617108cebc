"""Work that is spread over processes."""

import os
import signal
from functools import partial

import pytest

from rmiseg.runtime.cores import made_by


def square(number, broken=None, deadly=None):
    if number == broken:
        raise FileNotFoundError(f"no image {number}")
    if number == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2, os.getpid()


@pytest.mark.parametrize("processes", [0, 1, 3])
def test_items_come_in_their_order(processes):
    made = list(made_by(square, range(40), processes))
    assert [value for value, _ in made] == [number**2 for number in range(40)]
    assert ({process for _, process in made} == {os.getpid()}) == (processes == 0)


@pytest.mark.parametrize("processes", [0, 2])
def test_an_error_is_raised_as_it_is(processes):
    with pytest.raises(FileNotFoundError, match="no image 3"):
        list(made_by(partial(square, broken=3), range(40), processes))


def test_a_killed_process_is_told():
    with pytest.raises(ChildProcessError, match="was it killed, or the memory used up"):
        list(made_by(partial(square, deadly=7), range(40), 2))


def test_what_nobody_waits_for_is_not_made():
    made = made_by(square, range(10**9), 2)
    assert next(made)[0] == 0
    made.close()
