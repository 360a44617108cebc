"""A notebook as a page: its texts, code, and the outputs that were saved in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def page_of_notebook(path: Path) -> str:
    """Markdown of a notebook; pictures are inside of it."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join(part for cell in cells for part in _parts(cell)) + "\n"


def _parts(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            picture = "".join(data["image/png"]).replace("\n", "")
            yield f'<img alt="What this cell draws" src="data:image/png;base64,{picture}">'
        else:
            text = output.get("text") or data.get("text/plain", "")
            yield f"```text\n{''.join(text).rstrip()}\n```"
