"""Models as folders that model hubs take: weights, their description, and a card."""

from __future__ import annotations

from pathlib import Path

from rmiseg.config.registry import register
from rmiseg.exports.common import compare, copy_files, temporary_folder
from rmiseg.inference.checkpoint import PRETRAINED_CONFIG, PRETRAINED_WEIGHTS, load_checkpoint
from rmiseg.inference.segmenter import Segmenter


@register("export", "safetensors")
class HubFolder:
    """model.safetensors, config.json and README.md, which take the place of a run's folder too."""

    files = (PRETRAINED_WEIGHTS, PRETRAINED_CONFIG, "README.md")

    def write(self, segmenter: Segmenter, out: Path) -> float:
        """See `ExportFormat.write`."""
        with temporary_folder(out) as folder:
            segmenter.save_pretrained(folder)
            checkpoint = load_checkpoint(folder)
            loaded = Segmenter.from_checkpoint(checkpoint, segmenter.network if checkpoint.given_in_python else None)
            difference = compare(segmenter, loaded, "the model that was read back")
            copy_files(folder, out, self.files)
        return difference
