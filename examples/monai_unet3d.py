"""A 3-D UNet of MONAI on volumes, with regions of 3 x 3 x 3, and MONAI's Dice beside."""

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from monai.networks.nets import UNet

from rmiseg import RMILoss

CLASSES = 3


def batch(count=2, side=32):
    """Blobs of three classes, and noisy scans of them."""
    noise = torch.randn(count, CLASSES, 4, 4, 4)
    masks = F.interpolate(noise, size=(side,) * 3, mode="trilinear").argmax(dim=1)
    return masks.unsqueeze(1) + 0.5 * torch.randn(count, 1, side, side, side), masks


def main(steps=50):
    torch.manual_seed(0)
    model = UNet(spatial_dims=3, in_channels=1, out_channels=CLASSES, channels=(8, 16, 32), strides=(2, 2))
    # Volumes are small: pool by 2, not 4, and leave the labels 16^3 regions.
    rmi = RMILoss(num_classes=CLASSES, pool_size=2, subtract_floor=True)
    dice = DiceLoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    history = []
    for step in range(steps):
        scans, masks = batch()  # masks (2, 32, 32, 32)
        # Scans of half the size, as a network that must fit into memory sees them; labels of full size.
        logits = model(F.avg_pool3d(scans, 2))  # (2, 3, 16, 16, 16)
        full = F.interpolate(logits, masks.shape[1:], mode="trilinear")
        value = rmi(logits, masks) + dice(full, masks.unsqueeze(1))  # Dice needs equal sizes
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        history.append(value.item())
        if step % 10 == 0:
            print(f"step {step}: loss {value:.3f}")
    return history


if __name__ == "__main__":
    main()
