"""The options of every command but `train`, and the table of commands."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal, NamedTuple

from rmiseg.config.benchmarks import BenchDataConfig, BenchFormsConfig, BenchLossConfig
from rmiseg.config.options import OpenConfig, TrainConfig

PREDICTION_FORMATS = ("index", "gray", "color", "overlay", "geotiff", "nifti", "probabilities", "voc", "cityscapes")
"""Files that predictions can be written as, beside those of labelling tools."""
VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
"""Files to predict on that are videos."""


@dataclass(kw_only=True)
class TilingConfig:
    """Test-time augmentation and tiles: by default the network is shown an image once, whole."""

    scales: list[float] = field(default_factory=lambda: [1.0])
    """Factors of the image size, on top of that of training; probabilities are averaged."""
    flip: bool = False
    """Show every image mirrored too, and average."""
    window: int | None = None
    """Side of the square windows that an image is cut into, in pixels of the network's input; bounds memory. By default
    the network sees whole images."""
    overlap: float = 0.25
    """Share of a window that the next one sees too, 0 to 0.5; there results blend."""


def tiling_config(config: TilingConfig) -> TilingConfig:
    """The part of the options of a command that says how the network is shown an image."""
    return TilingConfig(**{each.name: getattr(config, each.name) for each in fields(TilingConfig)})


@dataclass
class CRFConfig:
    """A dense CRF (Krähenbühl and Koltun 2011), with the kernels of the RMI paper."""

    gaussian_sxy: float = 3.0
    """Standard deviation of the smoothness kernel, in pixels."""
    gaussian_compat: float = 3.0
    """Its weight."""
    bilateral_sxy: float = 30.0
    """Standard deviation of the appearance kernel in space, in pixels."""
    bilateral_srgb: float = 13.0
    """Its standard deviation in color, of 0 to 255."""
    bilateral_compat: float = 10.0
    """Its weight."""
    workers: int | None = None
    """Processes that refine images; by default one for each CPU."""


@dataclass
class PlanConfig(OpenConfig):
    """Print what a training would decide, and what it would cost, without training."""

    gpu: str | None = None
    """Memory of another GPU to plan for, such as "24 GB"; by default this machine is planned for."""


@dataclass(kw_only=True)
class EvaluateConfig(TilingConfig):
    """Score a checkpoint on a data set, at the size of its masks."""

    checkpoint: str
    """A checkpoint file, the folder of a run (its best checkpoint), or an exported folder (safetensors)."""
    split: str | None = None
    """Split to score on; by default the validation split of the run."""
    root: str | None = None
    """Folder of the data set, if it is no longer where the run found it."""
    out: str | None = None
    """Folder for the results, which replace earlier ones; by default evaluation/SPLIT in the folder of the run."""
    json: str | None = None
    """File to write the scores to as well; - is standard output."""
    crf: list[int] = field(default_factory=list)
    """Iterations of a dense CRF, such as 1,5,10: each is scored beside the network alone."""
    dense_crf: CRFConfig = field(default_factory=CRFConfig)
    """Its kernels."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ..."""
    metrics: list[str] = field(default_factory=list)
    """Further metrics to take: cldice, for thin structures, or those of plugins."""


@dataclass(kw_only=True)
class CompareConfig:
    """Compare two checkpoints on the images of one split: differences with intervals, per class and per image."""

    a: str
    """The first: a run's folder, a checkpoint, or the folder of an evaluation. What is not evaluated yet is, with the
    defaults of `rmiseg evaluate`."""
    b: str
    """The second."""
    split: str | None = None
    """Split to compare on; by default the validation split of the run."""
    root: str | None = None
    """Folder of the data set, if it is no longer where the run found it."""
    images: int = 5
    """Most images to list of those that gained most, and of those that lost most."""
    resamples: int = 2000
    """Random samples of the images by which the intervals are estimated (bootstrap)."""
    seed: int = 0
    """Seed of these samples."""
    json: str | None = None
    """File to write the comparison to; - is standard output."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ..."""


@dataclass
class CRFSearchConfig:
    """Search for the kernels of a dense CRF, at random, on images of the validation split."""

    checkpoint: str
    """A checkpoint file, the folder of a run (its best checkpoint), or an exported folder (safetensors)."""
    split: str | None = None
    """Split to search on; by default the validation split of the run."""
    root: str | None = None
    """Folder of the data set, if it is no longer where the run found it."""
    images: int = 50
    """Images to search on, spread over the split; their probabilities are held in memory."""
    trials: int = 20
    """Kernels to try; the first are the usual ones."""
    iterations: int = 5
    """Iterations of the CRF."""
    workers: int | None = None
    """Processes that refine images; by default one for each CPU."""
    seed: int = 0
    """Seed of the kernels that are drawn."""
    json: str | None = None
    """File to write the trials to, best first; - is standard output."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ..."""


@dataclass(kw_only=True)
class PredictConfig(TilingConfig):
    """Segment images with a checkpoint, at their original size."""

    checkpoint: str
    """A checkpoint file, the folder of a run (its best checkpoint), or an exported folder (safetensors)."""
    images: list[str] = field(default_factory=list)
    """Image files, videos, folders or glob patterns; - is a list of them on standard input."""
    split: str | None = None
    """Instead of images, a split of the data set that the run was trained on, such as test."""
    root: str | None = None
    """Folder of that data set, if it is no longer where the run found it."""
    out: str = "predictions"
    """Folder for the results, which mirror the names of the images."""
    write: list[str] = field(default_factory=lambda: ["index", "overlay"])
    """Files to write: index (PNG of class ids with a palette), gray (PNG of class ids), color (PNG of class colors),
    overlay (colors over the image), geotiff (TIFF of class ids with the coordinates of the image), nifti
    (volumes of class ids that lie where their volumes lie), probabilities (float16 npz), voc (what PASCAL VOC's test
    server takes), cityscapes (what that of Cityscapes takes); coco, cvat, label-studio and labelme (labels for these
    tools), kaggle-columns and kaggle-rows (run lengths in a table)."""
    tolerance: float = 1.0
    """Farthest that the outlines of labels may be from the edges of regions, in pixels; 0 keeps every step."""
    opacity: float = 0.5
    """Opacity of the class colors in the overlays, 0 to 1."""
    overwrite: bool = False
    """Replace results that exist."""
    resume: Literal["never", "auto"] = "never"
    """auto: keep the results that exist, if they are of the same checkpoint and settings, and make those that are
    missing, so that the same command can be given again and again."""
    crf: list[int] = field(default_factory=list)
    """Iterations of a dense CRF, such as 5; for several, such as 1,5,10, results go to crf1/, crf5/ and crf10/."""
    dense_crf: CRFConfig = field(default_factory=CRFConfig)
    """Its kernels."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ..."""


@dataclass
class ExportConfig:
    """Write a trained model in formats that other programs read, and compare each with PyTorch."""

    checkpoint: str
    """A checkpoint file, the folder of a run (its best checkpoint), or an exported folder (safetensors)."""
    format: str = "onnx"
    """onnx (model.onnx), onnx-int8 (model-int8.onnx, with integers of 8 bits), openvino (model.xml, model.bin),
    executorch (model.pte), torch-export (model.pt2), torch-aoti (model-aoti.pt2, compiled for processors like this
    one), triton-server (a folder that NVIDIA Triton Inference Server serves), safetensors (a folder that a model
    hub takes: weights, config.json, README.md), or several, separated by commas."""
    images: int = 64
    """Training images for onnx-int8: with one half its ranges are measured, with the other it is compared."""
    root: str | None = None
    """Folder of the data set with these images, if it is no longer where the run found it."""
    out: str | None = None
    """Folder for the files; by default export in the folder of the run."""
    overwrite: bool = False
    """Replace files that exist."""
    license: str | None = None
    """Licence of the model, for the model card (README.md of safetensors): an identifier such as cc-by-4.0."""
    push: str | None = None
    """Send the files to this repository of a model hub, OWNER/NAME, as huggingface_hub is logged in (`hf auth login`).
    safetensors must be among the formats."""
    private: bool = True
    """Make the repository private, if it does not exist yet."""


@dataclass(kw_only=True)
class AppConfig(TilingConfig):
    """Serve a page in the browser on which a model can be tried: images in, masks out, by hand or over HTTP."""

    runs: list[str]
    """A run's folder, checkpoint or exported folder; or two with the same classes, to compare."""
    host: str = "127.0.0.1"
    """Address to serve at. The default can be reached from this machine alone; 0.0.0.0 lets everybody on the network
    in, without a password."""
    port: int = 7860
    """Port to serve at."""
    max_upload: int = 50
    """Largest file that is taken, in megabytes."""
    max_pixels: int = 16_000_000
    """Largest image that is taken, in pixels; the probabilities of all classes are held in memory."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ..."""


@dataclass
class ConvertConfig:
    """Write a trained model of another program as a checkpoint, for `rmiseg evaluate`, `predict`, `export` and --init.

    Checkpoints of the code of the RMI paper, PyTorch-Encoding, torchvision, segmentation-models-pytorch and
    mmsegmentation are taken, as files or folders.
    """

    source: str
    """The file or folder."""
    out: str
    """File to write."""
    data: str | None = None
    """Data set that the model was trained on, whose classes it has: voc, cityscapes, camvid or ade20k."""
    model: str | None = None
    """Name of the model, as for training, where the file does not tell."""
    backbone: str | None = None
    """Its backbone, likewise."""
    output_stride: Literal[8, 16, 32] | None = None
    """Its output stride, where the file does not tell; by default that of the published ones: 16 for the RMI paper's,
    32 for UPerNet, 8 for the others."""
    overwrite: bool = False
    """Replace a file that exists."""


@dataclass
class ReportConfig:
    """Write one HTML page that shows and compares runs: curves, scores of each class, confusions, pictures."""

    runs: list[str]
    """Folders of runs with the same classes, or exported ones (safetensors)."""
    out: str = "report.html"
    """File of the page; an existing one is replaced."""
    split: str | None = None
    """Split to score on and to show; by default the validation split of the first run."""
    root: str | None = None
    """Folder of the data set, if it is no longer where the runs found it."""
    images: int = 24
    """Most pictures to show: the best, the worst, and those on which the runs differ most."""
    image_size: int = 640
    """Longer side of the pictures, in pixels; larger ones are made smaller."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ..."""


@dataclass
class DemoConfig:
    """Train one small model twice on brain slices, with cross entropy and with RMI, and compare."""

    out: str = "runs/demo"
    """Folder for data, runs, table and picture."""
    steps: int = 120
    """Optimizer steps of each of the two trainings."""
    seed: int = 0
    """Seed of both trainings."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ..."""


@dataclass
class ExperimentConfig:
    """Train and score a grid of runs, and compare them: tables, picture, a row a run.

    What is finished is not repeated.
    """

    plan: str
    """YAML file: the options of all runs, the methods with theirs, seeds, and values to choose the best of."""
    out: str = "runs/experiment"
    """Folder for the runs and the report."""
    root: str | None = None
    """Folder of the data set, if the plan does not say it."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ..."""
    jobs: int = 1
    """Runs at a time. They share the processor, and with the device auto or cuda are dealt the GPUs in turn."""


@dataclass
class ModelsConfig:
    """List the models, and the backbones that they can have."""

    backbones: str | None = None
    """Part of the names of timm models, or a pattern such as "resnet*"; those that can be backbones are listed with
    their output strides."""


@dataclass
class DataCheckConfig:
    """Read a whole data set and report what is wrong with it."""

    name: str | None = None
    """Data set, as for training; by default the one that the names of its files tell, else folder."""
    root: str = ""
    """Folder of the data set."""
    splits: list[str] | None = None
    """Splits to read; by default all but trainval, which repeats others."""
    workers: int | None = None
    """Processes that read images; by default one a core, 16 at most."""


@dataclass
class DataImportConfig:
    """Make a data set of images and masks from the export of a labelling tool."""

    source: str
    """File or unpacked folder that the tool wrote."""
    out: str
    """Folder to write, in the layout of the data set `folder`."""
    format: str | None = None
    """Its format: coco, coco-panoptic, cvat, darwin, datumaro, hasty, imagej, kaggle-columns, kaggle-rows,
    label-studio, labelme, qupath, roboflow-masks, street-polygons, supervisely, via, voc-masks, vott, yolo, or one of a
    plugin; by default it is recognized."""
    images: str | None = None
    """Folder of the images, if they do not lie in the source."""
    classes: list[str] | None = None
    """Names of the classes to take, in this order; by default all that have labels."""
    unlabeled: Literal["background", "ignore"] = "background"
    """Meaning of the pixels that no label covers: a class of their own, or pixels that do not count."""
    empty: Literal["leave-out", "background"] = "leave-out"
    """Images without any label: leave them out, or take them as background."""
    boxes: Literal["leave-out", "fill"] = "leave-out"
    """Labels that are rectangles: leave them out, or take all of a rectangle."""
    val: float = 0.2
    """Share of the images that become the validation split, if the source has none."""
    copy: bool = False
    """Copy the images, rather than link to them."""
    overwrite: bool = False
    """Replace what an earlier import wrote."""


class Command(NamedTuple):
    """One command.

    Attributes:
        config: Its options.
        help: What it does.
        positional: The options that are given without their names, the last perhaps several times.
    """

    config: type
    help: str
    positional: tuple[str, ...] = ()


COMMANDS = {
    "train": Command(TrainConfig, "train a model"),
    "plan": Command(PlanConfig, "what a training would decide, and what it would cost"),
    "evaluate": Command(EvaluateConfig, "score a checkpoint on a data set", ("checkpoint",)),
    "compare": Command(CompareConfig, "compare two checkpoints on the same images", ("a", "b")),
    "crf-search": Command(CRFSearchConfig, "search for the kernels of a dense CRF", ("checkpoint",)),
    "predict": Command(PredictConfig, "segment images with a checkpoint", ("checkpoint", "images")),
    "report": Command(ReportConfig, "show and compare runs on one HTML page", ("runs",)),
    "export": Command(
        ExportConfig, "write a trained model as ONNX, OpenVINO, ExecuTorch, torch.export, safetensors", ("checkpoint",)
    ),
    "app": Command(AppConfig, "try a model on a page in the browser", ("runs",)),
    "convert": Command(ConvertConfig, "write a model of another program as a checkpoint", ("source",)),
    "demo": Command(DemoConfig, "train a small model with cross entropy and with RMI, and compare"),
    "experiment": Command(ExperimentConfig, "train and compare a grid of runs", ("plan",)),
    "models": Command(ModelsConfig, "list the models, and the backbones that they can have"),
    "data check": Command(DataCheckConfig, "read a whole data set and report what is wrong with it"),
    "data import": Command(DataImportConfig, "make a data set from the export of a labelling tool", ("source",)),
    "bench data": Command(BenchDataConfig, "speed of loading images, and of training", ("recipe",)),
    "bench forms": Command(BenchFormsConfig, "time of RMI in every form that it takes, beside other losses"),
    "bench loss": Command(BenchLossConfig, "time and memory of the losses, beside those of cross entropy"),
}
GROUPS = {"data": "look after data sets", "bench": "measure time and memory"}
