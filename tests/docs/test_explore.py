"""The page on which RMI can be tried: it computes what the package computes, and it works in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from rmiseg import RMILoss
from rmiseg.functional import RMIOptions, perfect_rmi, rmi_sums

DOCS = Path(__file__).parents[2] / "docs"
PAGE, SCRIPT = DOCS / "explore.md", DOCS / "assets" / "rmi.js"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NODE = shutil.which("node")
HEIGHT, WIDTH = 40, 52

RUN = """
const RMI = require(process.argv[1]);
let text = "";
process.stdin.on("data", (part) => (text += part)).on("end", () => {
  const cases = JSON.parse(text);
  console.log(JSON.stringify(cases.map((c) => {
    const found = RMI.explain(c.logits, c.labels, c.height, c.width, c.pool, c.region);
    return [found.pixel, found.value, found.perfect, found.loss];
  })));
});
"""


def discs(shift: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return ((y - 18) ** 2 + (x - 24 - shift) ** 2 < 100) | ((x - 45 - shift).abs() < 2)


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_the_page_computes_what_the_package_computes():
    generator = torch.Generator().manual_seed(0)
    cases = []
    for pool, region, shift in ((1, 2, 0), (2, 3, 3), (3, 3, 0), (4, 3, 5), (4, 1, 2), (4, 4, 1), (5, 2, 9)):
        logits = (4 * discs(shift) - 2 + torch.randn(HEIGHT, WIDTH, generator=generator)).double()
        cases.append((pool, region, logits, discs(0).long()))
    given = [
        {
            "pool": pool,
            "region": region,
            "height": HEIGHT,
            "width": WIDTH,
            "logits": logits.flatten().tolist(),
            "labels": labels.flatten().tolist(),
        }
        for pool, region, logits, labels in cases
    ]
    command = [NODE, "-e", RUN, str(SCRIPT)]
    run = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=True)
    for (pool, region, logits, labels), found in zip(cases, json.loads(run.stdout)):
        options = RMIOptions(region, "avg", pool, "bce", align_corners=False)
        target, valid = labels[None], torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool)
        soft = target[:, None].double()
        pixel, rmi, _ = rmi_sums(logits[None, None], soft, valid, None, options)
        perfect = perfect_rmi(soft, valid, 1, options, torch.float64)
        loss = RMILoss(1, mode="binary", pool_size=pool, region_size=region)(logits[None, None], target)
        expected = [pixel.item() / labels.numel(), rmi.item(), perfect.item(), loss.item()]
        assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.slow
def test_in_a_browser(width, tmp_path):
    """The page's own part, as it stands in docs/explore.md."""
    sync_api = pytest.importorskip("playwright.sync_api")
    body = re.search(r'<div id="explore".*?\n</div>\n', PAGE.read_text(), flags=re.S)[0]
    scripts = "".join(f"<script>{(SCRIPT.parent / name).read_text()}</script>" for name in ("rmi.js", "explore.js"))
    style = f"<style>{(SCRIPT.parent / 'extra.css').read_text()}</style>"
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{style}<body>{body}{scripts}</body>")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        errors: list[object] = []
        page.on("pageerror", lambda error: errors.append(error))
        page.goto((tmp_path / "page.html").as_uri())
        page.set_default_timeout(30_000)

        def shown() -> tuple[float, float]:
            return tuple(float(page.locator(f"#value-{name}").inner_text()) for name in ("rmi", "pixel"))

        at_three = shown()
        box = page.locator("#scene").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * (0.5 - 3 / 64), box["y"] + box["height"] / 2)
        page.mouse.up()
        assert page.locator("#dx").input_value() == "0"
        at_zero = shown()
        assert at_zero[0] < at_three[0]
        assert at_zero[1] < at_three[1]
        page.locator("#scene").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("#dx").input_value() == "1"
        for control in ("pool", "region", "blur", "noise", "grow", "confidence"):
            before = page.locator("#value-loss").inner_text()
            page.locator(f"#{control}").focus()
            page.keyboard.press("ArrowRight")
            assert page.locator("#value-loss").inner_text() != before
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert not errors
        browser.close()
