"""A dense CRF behind a network: several images at a time, in processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from types import TracebackType
from typing import Self

import numpy as np

from rmiseg.config import CRFConfig
from rmiseg.data.bands import Bands
from rmiseg.inference.mean_field import Refined, refine
from rmiseg.runtime.cores import usable_cores
from rmiseg.runtime.extras import import_extra


class DenseCRF:
    """Refines probabilities by the colors of the image; a context manager, which owns processes.

    Args:
        iterations: Numbers of mean-field iterations after which there is a result, at least 1 each.
        config: The kernels, and the number of processes.

    Raises:
        ModuleNotFoundError: pydensecrf2 is not installed.
        ValueError: A number of iterations below 1, or an option out of range.
    """

    def __init__(self, iterations: Sequence[int], config: CRFConfig) -> None:
        if not iterations or min(iterations) < 1:
            raise ValueError(f"crf must be numbers of iterations, at least 1, not {list(iterations)}")
        kernels = asdict(config)
        workers = kernels.pop("workers")
        for name, value in kernels.items():
            if value <= 0:
                raise ValueError(f"dense_crf.{name} must be positive, not {value}")
        if workers is not None and workers < 1:
            raise ValueError(f"dense_crf.workers must be at least 1, not {workers}")
        import_extra("pydensecrf.densecrf", "crf", "a dense CRF")
        self.iterations = tuple(iterations)
        self.config = config
        self.workers = workers or usable_cores()
        # Not forked: a copy of a process with threads may wait for ever.
        self.processes = ProcessPoolExecutor(self.workers, multiprocessing.get_context("spawn"))

    def __call__(self, image: np.ndarray, probabilities: np.ndarray, config: CRFConfig | None = None) -> Refined:
        """Refine one image, in another process; may be called by several threads.

        Args:
            image: (H, W, B) uint8, of which the first three bands count.
            probabilities: (C, H, W) float32.
            config: Other kernels than the usual ones.
        """
        picture = Bands(image.shape[-1]).picture_of(image)
        return self.processes.submit(refine, picture, probabilities, self.iterations, config or self.config).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.processes.shutdown(wait=kind is None, cancel_futures=True)
