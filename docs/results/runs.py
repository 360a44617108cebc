"""Writes the tables of runs into the pages of this folder: python docs/results/runs.py

Each page PAGE.md has the runs of experiments/results/recipes/PAGE/ between two comments, best first.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
RUNS = FOLDER.parents[1] / "experiments" / "results" / "recipes"
PLACE = re.compile(r"(<!-- runs of \w+ -->\n).*?(<!-- end -->)", re.DOTALL)
USUAL_WIDTHS = {"deeplabv3plus": 256, "unet": 8}
"""Channels of their heads."""
NETWORKS = {"deeplabv3plus": "DeepLabv3+", "smp:Unet": "U-Net", "unet": "small U-Net"}
LOSSES = {
    "ce": "CE",
    "bce": "BCE",
    "focal": "focal",
    "ohem": "OHEM",
    "rmi-ramp": "RMI, rising (2)",
    "rmi-idea": "RMI (2, end to end)",
    "rmi-first": "CE after RMI (2, batch)",
    "rmi-noise": "RMI (2, batch, noise of 0.1)",
    "rmi-error": "covariance of the error (2, batch)",
}
OTHERS = {"dice": "Dice", "lovasz": "Lovasz"}


def main() -> None:
    """Write the tables of all pages."""
    for page in sorted(FOLDER.glob("*.md")):
        page.write_text(filled(page.read_text(), page.stem))


def filled(text: str, data: str) -> str:
    """Put the table of the runs of a data set into the text of its page, if there is a place for it."""
    return PLACE.sub(lambda found: f"{found[1]}\n{table(data)}\n\n{found[2]}", text)


def table(data: str) -> str:
    """Return the runs of a data set as a table of Markdown."""
    results = {path.stem: json.loads(path.read_text()) for path in sorted((RUNS / data).glob("*.json"))}
    best = sorted(results, key=lambda name: -results[name]["last"]["mean_iou"])
    classes = list(next(each["class_iou"] for each in results.values() if "class_iou" in each))
    shown = classes[1:] if len(classes) < 7 else []
    head = ["run", "network", "loss", "crops", "steps", "mIoU", "boundary", *shown]
    rows = [head, ["---"] * 4 + ["---:"] * (len(head) - 4)]
    rows += [_row(name, results[name], shown) for name in best]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(name: str, result: dict[str, Any], classes: list[str]) -> list[str]:
    options, scores = result.get("options"), result["last"]
    what = ["", "", ""] if options is None else [_network(options), _loss(options), _crops(options)]
    numbers = [scores["mean_iou"], scores.get("boundary_mean_iou")]
    numbers += [result.get("class_iou", {}).get(each) for each in classes]
    percent = ["" if number is None else f"{100 * number:.1f}" for number in numbers]
    return [f"`{name}`", *what, f"{result['steps']:,}", *percent]


def _network(options: dict[str, Any]) -> str:
    name, size = options["model.name"], options["data.image_scale"]
    width = options["model.options"].get("width")
    channels = f" of {width}" if width not in (None, USUAL_WIDTHS.get(name)) else ""
    return NETWORKS[name] + channels + (f", images x {size:g}" if size != 1 else "")


def _loss(options: dict[str, Any]) -> str:
    name, plus = options["loss.name"], options["loss.plus"]
    others = [OTHERS[each] if weight == 1 else f"{weight:g} {OTHERS[each]}" for each, weight in plus.items()]
    if name != "rmi":
        return " + ".join([LOSSES[name], *others])
    pixel, additive = options["loss.rmi.pixel_loss"].upper(), options["loss.rmi.combine"] == "additive"
    about = [str(options["loss.rmi.pool_size"])]
    about += ["batch"] if options["loss.rmi.covariance"] == "batch" else []
    about += [pixel] if pixel != "BCE" and not additive else []
    rmi = f"RMI ({', '.join(about)})"
    if additive:
        return " + ".join([pixel, *others, f"{options['loss.rmi.weight_lambda']:g} {rmi}"])
    return " + ".join([rmi, *others])


def _crops(options: dict[str, Any]) -> str:
    height, width = options["data.crop_size"]
    size = f"{height}" if height == width else f"{height} x {width}"
    turned = ", turned" if "rotate" in options["data.augment"] else ""
    return f"{options['data.batch_size']} of {size}{turned}"


if __name__ == "__main__":
    main()
