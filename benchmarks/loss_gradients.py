"""What each loss asks of a trained network: the gradient at its logits, shared out among the classes.

    python benchmarks/loss_gradients.py runs/my-run

The checkpoint sees augmented batches of its own training split; the losses are taken at the same logits. Printed as
Markdown: the norm of the gradient, its cosine with that of binary cross entropy, and each class's share of its absolute
values beside the class's share of the pixels.
"""

from __future__ import annotations

import argparse
import itertools

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from rmiseg.data import load_split, train_loader
from rmiseg.data.transforms.pipeline import normalize
from rmiseg.inference.checkpoint import load_checkpoint
from rmiseg.losses import BCELoss, CELoss, RMILoss, SegmentationLoss
from rmiseg.runtime.progress import track
from rmiseg.training.assembly import train_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--root", help="folder of the data set; by default where it was in training")
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()

    checkpoint = load_checkpoint(options.checkpoint)
    classes, data = checkpoint.classes, checkpoint.data
    model = checkpoint.build_model(torch.device("cpu"))
    split = load_split(data.name, options.root or data.root, data.train_split)
    loader = train_loader(train_dataset(split, data), batch_size=options.batch_size, workers=0, seed=0)
    losses: dict[str, SegmentationLoss] = {
        "CE": CELoss(len(classes)),
        "BCE": BCELoss(len(classes)),
        # Without its pixel loss.
        "RMI": RMILoss(len(classes), weight_lambda=0),
        "RMI, pool 2": RMILoss(len(classes), weight_lambda=0, pool_size=2),
        "RMI, R = 1": RMILoss(len(classes), weight_lambda=0, region_size=1),
        "RMI, mean covariance": RMILoss(len(classes), weight_lambda=0, covariance="mean"),
    }
    pixels = torch.zeros(len(classes))
    shares = {name: torch.zeros(len(classes)) for name in losses}
    norms, cosines = (dict.fromkeys(losses, 0.0) for _ in range(2))
    batches = itertools.islice(loader, options.batches)
    for batch in track(batches, "gradients", Console(stderr=True), options.batches):
        with torch.no_grad():
            logits = model(normalize(batch["image"], model.image_mean, model.image_std))
        target = batch["mask"]
        pixels += torch.stack([(target == c).sum() for c in range(len(classes))])
        gradients = {name: gradient(loss, logits, target) for name, loss in losses.items()}
        for name, values in gradients.items():
            shares[name] += values.abs().sum(dim=(0, 2, 3))
            norms[name] += values.norm().item() / options.batches
            cosine = F.cosine_similarity(values.flatten(), gradients["BCE"].flatten(), dim=0)
            cosines[name] += cosine.item() / options.batches

    print(f"| | pixels | {' | '.join(losses)} |")
    print(f"|---|---:|{'---:|' * len(losses)}")
    print(f"| norm | | {' | '.join(f'{norms[name]:.4f}' for name in losses)} |")
    print(f"| cosine with BCE | | {' | '.join(f'{cosines[name]:.2f}' for name in losses)} |")
    for c, class_name in enumerate(classes.names):
        cells = [f"{100 * values[c] / values.sum():.1f} %" for values in (pixels, *shares.values())]
        print(f"| {class_name} | {' | '.join(cells)} |")


def gradient(loss: SegmentationLoss, logits: Tensor, target: Tensor) -> Tensor:
    logits = logits.detach().requires_grad_()
    (values,) = torch.autograd.grad(loss(logits, target), logits)
    return values


if __name__ == "__main__":
    main()
