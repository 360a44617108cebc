"""The page on which RMI can be tried: it computes what the package computes, and it works in a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from rmiseg import RMILoss
from rmiseg.functional import RMIOptions, perfect_rmi, rmi_sums

SCRIPT = Path(__file__).parents[2] / "docs" / "assets" / "rmi.js"
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
