"""The bar of what takes longer than a few seconds."""

import time

from rich.console import Console

from rmiseg.runtime.progress import track


def test_the_rate_at_the_end_is_over_the_whole_time():
    """The first image is the slowest: rich leaves it out."""
    console = Console(record=True, width=100, force_terminal=False)
    for index in track(range(3), "predicting", console, total=3):
        time.sleep(0 if index else 0.5)
    rate = float(console.export_text().split("img/s")[0].split()[-1])
    assert 1 < rate <= 6
