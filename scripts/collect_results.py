"""Copy what came of the runs of an experiment, finished or under way, into small files to be kept.

python scripts/collect_results.py runs/experiment-losses experiments/results/losses

For each run that is over it writes METHOD/VALUES-SEED.json (or DATASET/METHOD/VALUES-SEED.json): the
content of its result.json without the places of files, and the IoU of each class on the validation split.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rmiseg.runtime.files import replacing, to_json

PLACES = ("out", "data.root", "device", "resume", "data.workers", "made_with")


def collect(source: Path, target: Path) -> list[Path]:
    """Write the files, and return their paths."""
    written = []
    for result in sorted(source.glob("**/run/result.json")):
        content = json.loads(result.read_text())
        options = {name: value for name, value in content["options"].items() if name not in PLACES}
        classes = {}
        for scores in sorted(result.parent.glob("evaluation/*-last/scores.json")):
            classes = {name: each["iou"] for name, each in json.loads(scores.read_text())["classes"].items()}
        run = result.parents[1].relative_to(source)
        path = target / run.parent / f"{run.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(to_json({**content, "class_iou": classes, "options": options}))
        written.append(path)
    return written


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    for path in collect(Path(sys.argv[1]), Path(sys.argv[2])):
        print(path)
