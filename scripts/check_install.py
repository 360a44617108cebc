"""Check an installation of the losses with PyTorch alone: python scripts/check_install.py --native require|none.

Run it with the Python that rmiseg was installed for, from a folder that has no source of it. Of several compiled
libraries it tries that for this machine, and then those for lesser ones.
"""

import argparse
import os
import subprocess
import sys

import torch

from rmiseg import RMILoss
from rmiseg.cli.version import version_text
from rmiseg.kernels import native

CAPABILITY = "ATEN_CPU_CAPABILITY"
"""Variable by which PyTorch takes the machine for a lesser one, which rmiseg asks it about."""
LESSER = {"AVX512": ("avx2", "default"), "AVX2": ("default",)}
HEAVY = ("timm", "torchvision", "jsonargparse", "PIL")

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--native", choices=("require", "none"), required=True, help="Must compiled code be there?")
expected = parser.parse_args().native == "require"

if native.is_available() != expected:
    sys.exit(f"compiled code is {'missing' if expected else 'there, and should not be'}\n{version_text()}")
if loaded := [name for name in HEAVY if name in sys.modules]:
    sys.exit(f"the losses import {', '.join(loaded)}")

torch.manual_seed(0)
logits, target = torch.randn(2, 5, 12, 16), torch.randint(0, 5, (2, 48, 64))
values = {}
for implementation in ("auto", "plain"):
    leaf = logits.clone().requires_grad_()
    loss = RMILoss(num_classes=5, implementation=implementation)(leaf, target)
    loss.backward()
    values[implementation] = (loss.detach(), leaf.grad)
torch.testing.assert_close(values["auto"], values["plain"], rtol=1e-4, atol=1e-6)
print(version_text())
print("The losses work: value and gradient are those of the definition.")
if expected and CAPABILITY not in os.environ:
    for lesser in LESSER.get(torch.backends.cpu.get_cpu_capability(), ()):
        subprocess.run([sys.executable, *sys.argv], env={**os.environ, CAPABILITY: lesser}, check=True)
