"""DeepLabv3 of torchvision: RMI on its logits at stride 8 or 16, cross entropy on those of the auxiliary head."""

import torch
import torch.nn.functional as F
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

from rmiseg import CELoss, RMILoss

CLASSES = 3


def batch(count=2, size=128):
    """Blobs of three classes, and noisy pictures of them."""
    masks = F.interpolate(torch.randn(count, CLASSES, 8, 8), size=(size, size), mode="bicubic").argmax(dim=1)
    images = F.one_hot(masks, CLASSES).movedim(-1, 1) + 0.5 * torch.randn(count, CLASSES, size, size)
    return images, masks


def main(steps=50):
    torch.manual_seed(0)
    model = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True)
    loss = RMILoss(num_classes=CLASSES, subtract_floor=True)
    auxiliary_loss = CELoss(num_classes=CLASSES)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    history = []
    for step in range(steps):
        images, masks = batch()
        # model(images) would upsample both; its parts do not.
        features = model.backbone(images)
        logits = model.classifier(features["out"])  # (2, 3, 8, 8)
        value = loss(logits, masks) + 0.4 * auxiliary_loss(model.aux_classifier(features["aux"]), masks)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        history.append(value.item())
        if step % 10 == 0:
            print(f"step {step}: loss {value:.3f}")
    return history


if __name__ == "__main__":
    main()
