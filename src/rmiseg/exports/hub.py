"""Model hubs: what a model card says of a run, and sending exported files to a repository."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but not in its __all__
from rich.console import Console

from rmiseg.config import TilingConfig
from rmiseg.config.options import POOLED
from rmiseg.config.recipes import read_yaml
from rmiseg.evaluation.results import SCORES_FILE, evaluation_folder, load_evaluation
from rmiseg.inference.checkpoint import Checkpoint, digest, find_checkpoint
from rmiseg.inference.model_card import CardFacts

CARD = "README.md"


def card_facts(run: Path, checkpoint: Checkpoint, license: str | None, console: Console) -> CardFacts:
    """Facts of a run's folder for its model card: how it was trained, and the scores of its evaluation.

    Args:
        run: Folder of the run, or a checkpoint file.
        checkpoint: Its checkpoint.
        license: See `CardFacts`.
        console: Where to say that there is no evaluation with intervals.

    Raises:
        ValueError: A file is damaged, or the licence is no identifier.
    """
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
        raise ValueError(f"license must be an identifier such as apache-2.0, cc-by-4.0 or other, not {license!r}")
    file = find_checkpoint(run)
    config = (run if run.is_dir() else run.parent.parent) / "config.yaml"
    training = _training(read_yaml(config)) if config.is_file() else {}
    settings = {**vars(TilingConfig()), "crf": None}
    for split in (checkpoint.data.scored_split, POOLED):
        folder = evaluation_folder(file, split, settings)
        evaluation = load_evaluation(folder).report if (folder / SCORES_FILE).is_file() else None
        if evaluation is not None and evaluation["sha256"] == digest(file):
            return CardFacts(license, training, evaluation)
    console.print(f"  the model card has no intervals of scores: `rmiseg evaluate {run}` first makes them")
    return CardFacts(license, training)


def _training(options: dict[str, Any]) -> dict[str, str]:
    """The options of a training that a reader of a card asks for first."""
    asked = {
        "loss": ("loss", "name"),
        "images at a time": ("data", "batch_size"),
        "crop (height, width)": ("data", "crop_size"),
        "scales of crops": ("data", "scale_range"),
        "learning rate": ("optim", "lr"),
        "seed": ("seed",),
    }
    found = {}
    for title, path in asked.items():
        value: Any = options
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            found[title] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return found


def check_push(repository: str, files: Sequence[str]) -> None:
    """See whether files can be sent to a repository, before they are made.

    Args:
        repository: OWNER/NAME.
        files: Names of the files.

    Raises:
        ValueError: The name is none of a repository, there is no model card among the files, or nobody is logged in.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ValueError(f"--push {repository}: {error}") from error
    if CARD not in files:
        raise ValueError("--push needs the model card, which safetensors writes: --format safetensors, or with others")
    if get_token() is None:
        raise ValueError("--push needs a token of the hub that may write: `hf auth login`, or the variable HF_TOKEN")


def push(repository: str, folder: Path, files: Sequence[str], private: bool) -> str:
    """Send files to a repository of a model hub, in one commit; the repository is made if it does not exist.

    Args:
        repository: OWNER/NAME.
        folder: Folder of the files.
        files: Their names in it, and in the repository.
        private: Make a new repository private; one that exists stays as it is.

    Returns:
        The address of the commit.

    Raises:
        OSError: The hub refuses, or cannot be reached.
    """
    api = HfApi(library_name="rmiseg")
    try:
        repository = api.create_repo(repository, private=private, exist_ok=True).repo_id
        operations = [CommitOperationAdd(name, str(folder / name)) for name in files]
        commit = api.create_commit(repository, operations, commit_message="Model exported by rmiseg")
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise OSError(
            f"the hub at {api.endpoint} refused to take {repository} (HTTP {status}): {' '.join(str(error).split())}; "
            "the exported files are kept"
        ) from error
    return str(commit.commit_url)
