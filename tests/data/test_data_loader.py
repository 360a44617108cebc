"""Batches are a pure function of (seed, epoch), whatever the number of workers."""

from __future__ import annotations

import pytest
import torch

from miniatures import write_image, write_mask
from rmiseg.data import SegmentationDataset, eval_loader, eval_transform, load_split, train_loader, train_transform
from rmiseg.data.loader import EpochBatches, epoch_keys
from rmiseg.runtime import cores


@pytest.fixture
def dataset(split_root) -> SegmentationDataset:
    transform = train_transform((12, 12), color_jitter=0.3)
    return SegmentationDataset(load_split("folder", split_root, "train"), transform)


def epochs(dataset, workers: int, seed: int = 0, which=(0, 1)) -> list[dict]:
    loader = train_loader(dataset, batch_size=2, workers=workers, seed=seed)
    batches = []
    for epoch in which:
        loader.set_epoch(epoch)
        batches += list(loader)
    return batches


def same(first: list[dict], second: list[dict]) -> bool:
    return len(first) == len(second) and all(
        a["name"] == b["name"] and torch.equal(a["image"], b["image"]) and torch.equal(a["mask"], b["mask"])
        for a, b in zip(first, second)
    )


def test_batch(dataset):
    batch = next(iter(train_loader(dataset, batch_size=2, workers=0, seed=0)))
    assert batch["image"].shape == (2, 3, 12, 12)
    assert batch["mask"].shape == (2, 12, 12)
    assert batch["image"].dtype == batch["mask"].dtype == torch.uint8
    assert type(batch["image"]) is type(batch["mask"]) is torch.Tensor
    assert len(batch["name"]) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_the_batches(dataset, workers):
    assert same(epochs(dataset, workers), epochs(dataset, 0))


def test_seed_and_epoch_change_order_and_augmentation(dataset):
    batches = epochs(dataset, 0)
    torch.manual_seed(99)  # the global generator has no say
    assert same(batches, epochs(dataset, 0))
    assert not same(batches[:2], batches[2:])
    assert not same(batches, epochs(dataset, 0, seed=1))
    assert same(batches[2:], epochs(dataset, 0, which=(1,)))  # epoch 1 without epoch 0 before it


def test_epoch_keys():
    keys = epoch_keys(50, seed=3, epoch=4)
    assert sorted(index for index, _ in keys) == list(range(50))
    assert len({seed for _, seed in keys}) == 50
    assert keys == epoch_keys(50, 3, 4)
    assert keys != epoch_keys(50, 4, 3)  # seed and epoch do not add up


def test_left_over_images_are_dropped(dataset):
    loader = train_loader(dataset, batch_size=2, workers=0, seed=0)
    assert len(loader) == len(list(loader)) == 2


def test_too_few_images(dataset):
    with pytest.raises(ValueError, match="5 images, fewer than one batch of 6"):
        train_loader(dataset, batch_size=6, workers=0, seed=0)


@pytest.mark.parametrize(("option", "value"), [("batch_size", 0), ("workers", -1), ("seed", -1)])
def test_impossible_options(dataset, option, value):
    options = {"batch_size": 2, "workers": 0, "seed": 0, option: value}
    with pytest.raises(ValueError, match=f"{option} must be.*{value}"):
        train_loader(dataset, **options)


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_sees_every_image_once_in_order(split_root, workers):
    write_image(split_root / "images" / "val" / "val9.png", size=(30, 40))
    write_mask(split_root / "masks" / "val" / "val9.png", size=(30, 40))
    dataset = SegmentationDataset(load_split("folder", split_root, "val"), eval_transform(0.5))
    batches = list(eval_loader(dataset, workers=workers))
    assert [batch["name"] for batch in batches] == [["val/val0"], ["val/val1"], ["val/val9"]]
    assert batches[2]["image"].shape == (1, 3, 20, 15)
    assert batches[2]["mask"].shape == (1, 40, 30)


def test_workers_may_start_before_the_first_batch_is_asked_for(split_root):
    dataset = SegmentationDataset(load_split("folder", split_root, "val"), eval_transform())
    loader = eval_loader(dataset, workers=1)
    loader.start()
    (worker,) = loader._begun._workers
    assert worker.is_alive()
    assert same(list(loader), list(eval_loader(dataset, workers=0)))
    assert same(list(loader), list(loader))
    assert loader._iterator._workers == [worker]
    loader.close()
    assert not worker.is_alive()


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_in_workers_name_the_file(dataset, split_root, workers):
    (split_root / "images" / "train" / "train3.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"train3\.png"):
        list(train_loader(dataset, batch_size=5, workers=workers, seed=0))


def test_batches_of_different_sizes_are_refused(split_root):
    write_image(split_root / "images" / "train" / "train1.png", size=(30, 40))
    write_mask(split_root / "masks" / "train" / "train1.png", size=(30, 40))
    dataset = SegmentationDataset(load_split("folder", split_root, "train"))
    with pytest.raises(ValueError, match=r"differ in size.*\(3, 16, 24\), \(3, 40, 30\)"):
        list(train_loader(dataset, batch_size=5, workers=0, seed=0))


def test_an_epoch_goes_through_few_images_several_times():
    batches = EpochBatches(3, seed=0, batch_size=4, rank=0, world_size=1, repeat=5)
    keys = [key for batch in batches for key in batch]
    assert len(batches) == 3
    assert [sorted(index for index, _ in keys[at : at + 3]) for at in (0, 3, 6, 9)] == [[0, 1, 2]] * 4
    assert len(set(keys)) == 12  # each with a seed of its own
    assert keys[:3] == epoch_keys(3, 0, 0)
    batches.epoch = 1
    assert next(iter(batches))[:3] == epoch_keys(3, 0, 5)
    batches.epoch, batches.first_batch = 0, 2  # as after an interruption
    assert [key for batch in batches for key in batch] == keys[8:]
    endless = EpochBatches(3, seed=0, batch_size=4, rank=0, world_size=1, repeat=10**9)
    endless.first_batch = 10**8
    assert next(iter(endless))[:2] == epoch_keys(3, 0, 4 * 10**8 // 3)[1:]


def test_processes_by_cores(monkeypatch):
    monkeypatch.setattr(cores, "usable_cores", lambda: 12)
    assert cores.worker_count(None, 1000) == 12
    assert cores.worker_count(None, 3) == 3  # no more than there are batches
    assert cores.worker_count(0, 1000) == 0
    assert cores.worker_count(40, 3) == 40
    monkeypatch.setattr(cores, "usable_cores", lambda: 128)
    assert cores.worker_count(None, 1000) == cores.MOST_WORKERS
    with pytest.raises(ValueError, match="workers must be 0 or more, not -1"):
        cores.worker_count(-1, 1000)
