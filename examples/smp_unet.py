"""A Unet of segmentation-models-pytorch, binary: RMI and binary cross entropy, and Dice of the same library beside."""

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F

from rmiseg import RMILoss


def batch(count=4, size=128):
    """Blobs, and noisy pictures of them."""
    masks = (F.interpolate(torch.randn(count, 1, 8, 8), size=(size, size), mode="bicubic") > 0).long()
    return masks + 0.5 * torch.randn(count, 3, size, size), masks


def main(steps=100):
    torch.manual_seed(0)
    model = smp.Unet("resnet18", encoder_weights=None, classes=1)
    rmi = RMILoss(num_classes=1, mode="binary", subtract_floor=True)
    dice = smp.losses.DiceLoss("binary")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    history = []
    for step in range(steps):
        images, masks = batch()
        # Pictures of half the size, masks of full size: quicker, and what is learned is still the fine outline.
        logits = model(F.avg_pool2d(images, 2))  # (4, 1, 64, 64)
        full = F.interpolate(logits, masks.shape[-2:], mode="bilinear")
        value = rmi(logits, masks) + 0.5 * dice(full, masks)  # masks (4, 1, 128, 128); Dice needs equal sizes
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        history.append(value.item())
        if step % 10 == 0:
            print(f"step {step}: loss {value:.3f}")
    return history


if __name__ == "__main__":
    main()
