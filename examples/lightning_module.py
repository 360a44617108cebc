"""A LightningModule with RMI, whose parts are logged."""

import lightning
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from rmiseg import RMILoss

CLASSES = 3


def samples(count, size=96):
    """Blobs of three classes, and noisy pictures of them."""
    masks = F.interpolate(torch.randn(count, CLASSES, 8, 8), size=(size, size), mode="bicubic").argmax(dim=1)
    images = F.one_hot(masks, CLASSES).movedim(-1, 1) + 0.5 * torch.randn(count, CLASSES, size, size)
    return list(zip(images, masks))


class Segmenter(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 32, 8, stride=4, padding=2), nn.ReLU(), nn.Conv2d(32, CLASSES, 3, padding=1)
        )
        # Class weights are a buffer, and go to the device with the module.
        self.loss = RMILoss(num_classes=CLASSES, class_weights=[0.5, 1.0, 1.5], subtract_floor=True)
        self.history = []

    def training_step(self, batch, index):
        images, masks = batch
        value, parts = self.loss(self.net(images), masks, return_parts=True)  # logits (4, 3, 24, 24)
        self.log_dict({"loss": value, **parts}, prog_bar=True)
        self.history.append(value.item())
        return value

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main(steps=100):
    lightning.seed_everything(0)
    module = Segmenter()
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False
    )
    trainer.fit(module, DataLoader(samples(4 * steps), batch_size=4))
    return module.history


if __name__ == "__main__":
    main()
