"""RMI in a loop of plain PyTorch, from logits at stride 4 and without an upsampling layer."""

import torch
import torch.nn.functional as F
from torch import nn

from rmiseg import RMILoss

CLASSES = 3


def batch(count=4, size=96):
    """Blobs of three classes, and noisy pictures of them."""
    masks = F.interpolate(torch.randn(count, CLASSES, 8, 8), size=(size, size), mode="bicubic").argmax(dim=1)
    images = F.one_hot(masks, CLASSES).movedim(-1, 1) + 0.5 * torch.randn(count, CLASSES, size, size)
    return images, masks


def main(steps=100):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(32, 32, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(32, CLASSES, 1),
    )
    # subtract_floor: the same gradients, and a value that falls towards zero.
    loss = RMILoss(num_classes=CLASSES, subtract_floor=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    history = []
    for step in range(steps):
        images, masks = batch()
        # Logits (4, 3, 24, 24), labels (4, 96, 96): the loss interpolates.
        value, parts = loss(model(images), masks, return_parts=True)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        history.append(value.item())
        if step % 10 == 0:
            print(f"step {step}: loss {value:.3f}, pixel {parts['pixel']:.3f}, rmi {parts['rmi']:.3f}")
    return history


if __name__ == "__main__":
    main()
