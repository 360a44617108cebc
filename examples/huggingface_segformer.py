"""SegFormer of Hugging Face, from its configuration, with Trainer: RMI is its compute_loss_func."""

import tempfile

import torch
import torch.nn.functional as F
from transformers import SegformerConfig, SegformerForSemanticSegmentation, Trainer, TrainingArguments

from rmiseg import RMILoss

CLASSES = 3


def samples(count, size=64):
    """Blobs of three classes, and noisy pictures of them."""
    masks = F.interpolate(torch.randn(count, CLASSES, 8, 8), size=(size, size), mode="bicubic").argmax(dim=1)
    images = F.one_hot(masks, CLASSES).movedim(-1, 1) + 0.5 * torch.randn(count, CLASSES, size, size)
    return [{"pixel_values": image, "labels": mask} for image, mask in zip(images, masks)]


def main(steps=100):
    torch.manual_seed(0)
    config = SegformerConfig(
        num_labels=CLASSES, depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 48, 64], decoder_hidden_size=64
    )
    loss = RMILoss(num_classes=CLASSES, subtract_floor=True)
    history = []

    def compute_loss(outputs, labels, num_items_in_batch=None):
        # The logits are at stride 4, (4, 3, 16, 16); the labels (4, 64, 64).
        value = loss(outputs.logits, labels)
        history.append(value.item())
        return value

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            report_to="none",
            save_strategy="no",
            logging_steps=10,
        )
        model = SegformerForSemanticSegmentation(config)
        Trainer(model, arguments, train_dataset=samples(4 * steps), compute_loss_func=compute_loss).train()
    return history


if __name__ == "__main__":
    main()
