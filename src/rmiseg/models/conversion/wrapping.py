"""State dicts within what training scripts write around them: other dictionaries, and beginnings of all names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

AVERAGED = ("state_dict_ema", "model_ema", "params_ema", "ema", "teacher")
"""Names under which files hold an average of the weights over the training, which is what to predict with."""

WEIGHTS = (
    *("state_dict", "model", "weights", "model_state_dict", "model_state", "net", "network", "params", "module"),
    *("checkpoint", "student"),
    "ema_state_dict",  # last: mmengine, which writes it, has swapped it with state_dict
)
"""Names under which they hold the weights themselves."""

COMPILED = r"(?:(?<=\.)|^)(?:_orig_mod|_forward_module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
"""Words that torch.compile and the wrappers of distributed training put into names."""

SHARE = 0.4  # of the names; a momentum encoder doubles them, beside a few of others


def find_state_dict(content: Any) -> dict[str, Any] | None:
    """Return the state dict within a file's content, averaged weights first, or None if there is none.

    Args:
        content: Dictionaries, lists and tensors, however deep.
    """
    if isinstance(content, list | tuple):
        return _largest(list(content))
    if not isinstance(content, Mapping):
        return None
    for name in (*AVERAGED, *WEIGHTS):
        if isinstance(content.get(name), Mapping) and (found := find_state_dict(content[name])):
            return found
    if any(isinstance(value, Tensor) and isinstance(name, str) for name, value in content.items()):
        return {_without_wrappers(str(name)): value for name, value in content.items()}
    return _largest([value for name, value in content.items() if "optim" not in str(name)])


def _largest(parts: list[Any]) -> dict[str, Any] | None:
    found = [state for part in parts if (state := find_state_dict(part))]
    return max(found, key=len, default=None)


def _without_wrappers(name: str) -> str:
    return re.sub(r"^(?:module\.)+", "", re.sub(COMPILED, "", name))


def beginnings(names: Iterable[str]) -> list[str]:
    """Return the beginnings, of whole words, that many of the names share; that of no words first, short ones first.

    A network that is part of another has one before all names, such as "model." in files of Lightning.
    """
    counts: Counter[str] = Counter()
    total = 0
    for name in names:
        total += 1
        words = name.split(".")
        counts.update(".".join(words[:depth]) + "." for depth in range(1, min(len(words), 4)))
    return ["", *(beginning for beginning, count in counts.items() if count >= SHARE * total)]


def without(beginning: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries, without a beginning of their names where they have it; entries that have it come first."""
    having = {name.removeprefix(beginning): value for name, value in state.items() if name.startswith(beginning)}
    return having | {name: value for name, value in state.items() if not name.startswith(beginning)}
