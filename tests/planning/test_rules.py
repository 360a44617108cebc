"""Every rule of a plan, on facts made up for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rmiseg.planning import Machine, images, network, schedule
from rmiseg.planning.memory import MemoryNeed
from rmiseg.planning.pace import Pace, steps_within
from rmiseg.planning.profile import ClassProfile, DataProfile

CPU = Machine("cpu", 0, 8, 1, True)
GPU = Machine("cuda", 24 * 10**9, 8, 1, True)


def profile(*others: tuple[str, float, float], size: tuple[int, int] = (360, 480), **facts) -> DataProfile:
    """A data set of a ground and other classes, each with a name, a share and a width."""
    classes = tuple(ClassProfile(name, share, 10, width) for name, share, width in others)
    ground = ClassProfile("ground", 1 - sum(share for _, share, _ in others), 10, 100.0)
    facts = {"upright": 0.5, **facts}
    facts = {"images": 100, "val_images": 20, "masks": 10, "ignored": 0.0} | facts
    return DataProfile(size=size, largest=facts.pop("largest", size), classes=(ground, *classes), **facts)


THICK = profile(("car", 0.2, 30.0))
THIN = profile(("crack", 0.02, 1.5))


def test_image_scale():
    assert images.image_scale(THICK).value == 1
    assert images.image_scale(THIN).value == 2
    assert images.image_scale(profile(("crack", 0.02, 2.6))).value == 1.5
    others = [(name, 0.1, 20.0) for name in "abcd"]
    assert images.image_scale(profile(("crack", 0.01, 3.5), *others)).value == 1  # one class of five
    poles = profile(("pole", 0.01, 2.3), *others)
    assert images.image_scale(poles).value == 1.5
    assert images.image_scale(poles, hurried=True).value == 1
    assert images.image_scale(THIN, hurried=True).value == 2
    assert "crack" in images.image_scale(THIN).because
    assert images.image_scale(profile(("line", 0.01, 1.0), size=(1200, 1500))).value == 1  # no more than 2048 pixels


def test_a_network_with_a_logit_for_each_pixel_needs_no_larger_images():
    assert images.image_scale(THIN, full_size=True).value == 1
    assert images.image_scale(replace(THIN, largest=(4096, 4096)), full_size=True).value == 0.5


def test_augment_where_images_have_no_upper_side():
    (chosen,) = images.augment(replace(THICK, upright=0.01))
    assert chosen.value == {"flip-vertical": {}, "rotate": {"degrees": 180}}
    assert images.augment(replace(THICK, upright=0.1)) == []
    assert images.augment(replace(THICK, upright=0.01, images=10_000)) == []


def test_image_scale_of_images_too_large():
    large = replace(THICK, size=(9000, 9000), largest=(20_000, 15_000))
    decision = images.image_scale(large)
    assert 20_000 * decision.value == pytest.approx(2048, rel=0.05)
    assert "20000 pixels" in decision.because
    assert "lost" in images.image_scale(replace(THIN, largest=(20_000, 15_000))).because


@pytest.mark.parametrize(
    ("size", "scale", "device", "expected"),
    [
        ((360, 480), 1.0, "cuda", (352, 480)),
        ((360, 480), 1.0, "cpu", (256, 256)),
        ((360, 480), 0.5, "cpu", (160, 224)),
        ((960, 999), 1.0, "cuda", (512, 512)),
        ((360, 480), 1.5, "cpu", (384, 384)),
        ((360, 480), 2.0, "cpu", (512, 512)),
        ((360, 480), 1.5, "cuda", (512, 704)),
        ((20, 20), 1.0, "cpu", (32, 32)),
    ],
)
def test_crop_size(size, scale, device, expected):
    assert images.crop_size(replace(THICK, size=size), scale, device).value == expected


def test_crops_are_smaller_where_time_is_short():
    assert [schedule.is_hurried(count, "cpu") for count in (150, 1499, 1500)] == [True, True, False]
    assert [schedule.is_hurried(count, "cpu", scale=1.5) for count in (666, 667)] == [True, False]
    assert not schedule.is_hurried(10, "cuda")
    assert images.crop_size(THICK, 1.0, "cpu", hurried=True).value == (192, 192)
    assert images.crop_size(replace(THICK, size=(100, 120)), 1.0, "cpu", hurried=True).value == (96, 96)


def test_scales_need_no_step():
    chosen = {each.option: each.value for each in images.scales(THICK)}
    assert chosen == {"data.scale_range": (0.75, 1.5), "data.scale_step": 0.0}


def test_rare_share():
    assert images.rare_share(THIN, 1.0, (160, 160)).value == 0.5
    assert images.rare_share(THIN, 1.0, (352, 480)).value == 0  # a crop shows all
    assert images.rare_share(THICK, 1.0, (160, 160)).value == 0  # nothing is rare
    seldom = images.rare_share(replace(THIN, masks=40), 1.0, (352, 480))  # a crop shows all of what few images show
    assert seldom.value == 0.5
    assert "10 of 40" in seldom.because


def test_color_jitter():
    assert images.color_jitter(THICK).value == 0.3
    assert images.color_jitter(replace(THICK, images=10_000)).value == 0


def test_pool_size():
    assert images.pool_size(THICK, 1.0).value == 4
    assert images.pool_size(THIN, 1.0).value == 2
    assert images.pool_size(THIN, 4.0).value == 4


def test_loss():
    usual = {"loss.plus": {"dice": 1.0}, "loss.rmi.covariance": "batch"}
    assert {each.option: each.value for each in images.loss(THIN)} == usual
    assert "ground" in images.loss(THIN)[0].because
    nuclei = profile(("nucleus", 0.15, 10.0), ("border", 0.03, 1.0))
    assert {each.option: each.value for each in images.loss(nuclei)} == usual
    seldom = images.loss(replace(nuclei, masks=100))  # both are in ten of them
    assert {each.option: each.value for each in seldom} == {"loss.name": "ce", "loss.plus": {"dice": 1.0}}
    assert "nucleus is in 10 of 100" in seldom[0].because
    assert {each.option: each.value for each in images.loss(profile(("car", 0.3, 30.0)))} == usual
    assert images.loss(profile(("car", 0.3, 30.0), masks=100)) == []
    assert images.loss(profile()) == []  # a class alone


@pytest.mark.parametrize(("count", "batch"), [(1, 2), (2, 2), (3, 2), (5, 4), (10_000, 4)])
def test_batch_shrinks_with_the_images(count, batch):
    size, accumulate = schedule.batch_size(count, CPU, None)
    assert (size.value, accumulate.value) == (batch, 1)


def test_batch_fits_the_memory():
    need = MemoryNeed(10**9, 3 * 10**9)  # of 24 GB, a twentieth is left
    size, accumulate = schedule.batch_size(1000, GPU, need)
    assert (size.value, accumulate.value) == (4, 4)
    assert "45.6 GB" in size.because
    assert [each.value for each in schedule.batch_size(1000, GPU, MemoryNeed(0, 10**8))] == [16, 1]
    assert schedule.batch_size(1000, GPU, MemoryNeed(10**12, 1))[0].value == 2
    assert MemoryNeed.through((2, 14), (4, 24)).of(8) == 44


def test_batch_is_a_multiple_of_the_processes():
    assert schedule.batch_size(1000, replace(GPU, processes=3), None)[0].value == 18


@pytest.mark.parametrize(("count", "times"), [(1, 400), (24, 17), (59, 7), (1000, 1)])
def test_repeat(count, times):
    assert schedule.repeat(count, 8, 1).value == times


@pytest.mark.parametrize(
    ("count", "device", "expected"), [(24, "cpu", 1500), (367, "cpu", 2294), (10_582, "cpu", 6000), (24, "cuda", 4000)]
)
def test_steps(count, device, expected):
    assert schedule.steps(count, 8, device).value == expected


def test_steps_in_larger_images_take_as_much_time():
    decision = schedule.steps(367, 4, "cpu", scale=1.5)
    assert decision.value == 2667
    assert "1.5 times" in decision.because
    assert schedule.steps(367, 4, "cpu", scale=0.5).value == 4588
    assert schedule.steps(367, 16, "cuda", scale=1.5).value == 4000  # as many as it takes to learn


def test_val_every():
    assert schedule.val_every(1500, 50, 8e5, 1e6).value == 2  # twenty evaluations or fewer
    often, seldom = (schedule.val_every(1500, 50, 1e5, pixels).value for pixels in (1e6, 1e8))
    assert seldom > often  # they would take too long


def test_learning_rate():
    rate, warmup = schedule.learning_rate("sgd", "tf_efficientnet_lite0", 8, 1500)
    assert (rate.value, warmup.value) == (0.05, 150)
    assert schedule.learning_rate("sgd", "resnet50", 32, 1500)[0].value == 0.02
    assert schedule.learning_rate("adamw", None, 8, 5)[0].value == 1e-4
    assert schedule.learning_rate("sgd", None, 8, 100_000)[1].value == 1500
    assert schedule.learning_rate("sgd", None, 8, 1)[1].value == 0


def test_light_backbones_take_adamw():
    for light in ("tf_efficientnet_lite0", "tu-tf_efficientnet_lite0"):
        (chosen,) = schedule.optimizer(light)
        assert (chosen.option, chosen.value) == ("optim.name", "adamw")
    assert not schedule.optimizer("resnet50")
    assert not schedule.optimizer(None)


def test_norm_momentum():
    assert [schedule.norm_momentum(total).value for total in (20, 300, 1500, 10**6)] == [0.3, 0.14, 0.05, 0.05]


def test_average():
    assert [schedule.average(total)[0].value for total in (54, 180, 300, 800)] == [0.89, 0.97, 0.98, 0.99]
    assert schedule.average(3) == schedule.average(1500) == schedule.average(10**6) == []


def test_backbone():
    def chosen(machine, *available):
        decisions = network.backbone(machine, lambda name: "package" if name in available else "none")
        return [each.value for each in decisions]

    assert chosen(CPU, "tf_efficientnet_lite0") == ["tf_efficientnet_lite0", "package"]
    assert chosen(CPU) == ["resnet18", "none"]
    assert chosen(GPU, "resnet50", "tf_efficientnet_lite0") == ["resnet50", "package"]
    assert chosen(GPU, "tf_efficientnet_lite0") == ["tf_efficientnet_lite0", "package"]
    assert chosen(GPU) == ["resnet50", "none"]
    assert chosen(replace(GPU, memory=4 * 10**9), "resnet50") == ["resnet18", "none"]
    assert "random" in network.weights("resnet18", lambda _: "none").because


def test_unet_for_what_is_thin():
    thin = images.lines(THIN)
    assert images.lines(profile(("vessel", 0.08, 4.8)))
    assert not images.lines(
        profile(("a", 0.01, 2.0), ("b", 0.01, 3.0), ("c", 0.1, 90.0), ("d", 0.1, 80.0), ("e", 0.1, 9.0))
    )
    chosen = {each.option: each.value for each in network.unet(thin, "tf_efficientnet_lite0")}
    assert chosen == {
        "model.name": "smp:Unet",
        "model.backbone": "tu-tf_efficientnet_lite0",
        "optim.head_lr_factor": 2.0,
    }
    assert network.unet([], "tf_efficientnet_lite0") == network.unet(thin, "resnet50") == []


def test_head_over_a_light_backbone():
    (narrow,) = network.head_width("deeplabv3plus", "tf_efficientnet_lite0")
    assert (narrow.option, narrow.value) == ("model.options", {"width": 128})
    assert network.head_width("deeplabv3plus", "resnet50") == network.head_width("deeplabv3plus", None) == []
    assert network.head_width("smp:Unet", "tu-tf_efficientnet_lite0") == []


def test_precision_and_workers():
    assert network.precision(CPU).value == "bf16"
    assert network.precision(replace(CPU, bf16=False)).value == "fp32"
    assert network.workers(CPU).value == 2
    assert network.workers(GPU).value == 7
    assert network.workers(replace(GPU, cores=2)).value == 1


def test_steps_for_a_budget():
    pace = Pace(step=2.0, evaluation=30.0)
    assert steps_within(1, pace, 50, None).value == int((3600 * 0.95 - 17 * 30) / 2)
    assert steps_within(1, pace, 50, 1).value == int(3600 * 0.95 / 2.6)
    assert pace.hours(1500, 20) == 1
    with pytest.raises(ValueError, match="not enough"):
        steps_within(0.001, pace, 50, None)
