"""The page of `rmiseg app`, and its server."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from rmiseg.app.files import MASK, download, kinds
from rmiseg.app.looks import HEAD, STYLE, swatches, theme
from rmiseg.app.views import VIEWS, Seen, legend, look, picture, shares
from rmiseg.config.commands import AppConfig, tiling_config
from rmiseg.data.bands import RGB
from rmiseg.inference.predictor import Predictor
from rmiseg.reports.page import short_names
from rmiseg.runtime.extras import import_extra

KEPT_SECONDS = 3600
"""The images of a visitor, and files to download, are forgotten after so long."""

IMAGES = [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"]

KIND = "Download as a mask of class ids, or as labels for a labelling tool"

PROGRAMS = """
The same for programs, as an HTTP interface with a schema at `/gradio_api/info`. In Python
(`pip install gradio_client`):

```python
from gradio_client import Client, handle_file

mask, shares = Client("{url}").predict(handle_file("street.jpg"), api_name="/segment")
```

`mask` is the path of a PNG whose pixels are class ids; `shares` has the share of the pixels of each class by its name.
"""


class Page:
    """The functions behind the page.

    Args:
        predictors: One model, or two with the same classes.
        names: What they are called.
        max_pixels: Larger images are refused.
    """

    def __init__(self, predictors: Sequence[Predictor], names: Sequence[str], max_pixels: int) -> None:
        first = predictors[0].classes
        for predictor, name in zip(predictors, names):
            if predictor.classes.names != first.names:
                raise ValueError(f"{names[0]} and {name} have other classes, and cannot be compared")
        self.predictors, self.names, self.classes = predictors, names, first
        self.max_pixels = max_pixels

    def upload(self, gr: Any, sources: list[str], **options: Any) -> Any:
        """A part that takes an image: with a preview, unless a browser and Pillow cannot show what the models take."""
        if all(each.bands == RGB for each in self.predictors):
            part = gr.Image(type="filepath", label="Image", sources=sources, **options)
            # gradio would open the file itself: decode gray, palettes and 16 bits, of any size, and pack them anew.
            part.preprocess = lambda upload: None if upload is None else upload.path
            return part
        return gr.File(label="Image", file_types=IMAGES, **options)

    def look(self, path: str | None, kind: str, *choices: Any) -> tuple[Any, ...]:
        """Segment an upload with every model: what is remembered, and then what `show` returns."""
        seen = [] if path is None else [self._look(predictor, path) for predictor in self.predictors]
        file = self.file(seen, path, kind)
        return seen, legend(seen, self.names, self.classes), file, *self.show(seen, *choices)

    def show(self, seen: Sequence[Seen], view: str, shown: Sequence[str], opacity: float) -> list[np.ndarray | None]:
        """The picture of each model."""
        return [
            picture(seen[index], view, shown, opacity / 100, self.classes) if seen else None
            for index in range(len(self.predictors))
        ]

    def segment(self, path: str | None) -> tuple[str, dict[str, float]]:
        """The mask of an image as a file, and the shares of the classes, by the first model."""
        if path is None:
            raise _error("an image is missing")
        seen = self._look(self.predictors[0], path)
        return str(download([seen], [Path(path)], MASK, self.classes)), shares(seen, self.classes)

    def segment_many(self, paths: Sequence[str] | None, kind: str = MASK) -> str | None:
        """Masks or labels of several images by the first model, as a file."""
        if not paths:
            return None
        return self._download((self._look(self.predictors[0], path) for path in paths), paths, kind)

    def file(self, seen: Sequence[Seen], path: str | None, kind: str) -> str | None:
        """The mask or the labels of an image by the first model, as a file."""
        return self._download(seen[:1], [path], kind) if seen and path is not None else None

    def _download(self, seen: Iterable[Seen], paths: Sequence[str], kind: str) -> str:
        try:
            return str(download(seen, list(map(Path, paths)), kind, self.classes))
        except ModuleNotFoundError as error:
            raise _error(str(error)) from error

    def _look(self, predictor: Predictor, path: str) -> Seen:
        try:
            return look(predictor, Path(path), self.max_pixels)
        except (OSError, ValueError) as error:
            # The visitor knows the file by its name, and the folder of uploads is not their business.
            raise _error(str(error).replace(str(path), Path(path).name)) from error


def _error(message: str) -> Exception:
    import gradio

    error: Exception = gradio.Error(message, title="This did not work", print_exception=False)
    return error


def build_page(page: Page, url: str) -> Any:
    """The page as `gradio.Blocks`."""
    gr = import_extra("gradio", "app", "the page to try a model")
    with gr.Blocks(title="rmiseg", analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as blocks:
        gr.Markdown(f"# {page.names[0]}" + (f" and {page.names[1]}" if len(page.names) > 1 else ""))
        with gr.Tab("One image"):
            _one_image(gr, page)
        with gr.Tab("Many images"):
            files = gr.File(label="Images", file_count="multiple", file_types=IMAGES)
            kind = gr.Radio(kinds(), value=MASK, label=KIND)
            start = gr.Button("Segment", variant="primary")
            archive = gr.File(label="To download", interactive=False)
            start.click(page.segment_many, [files, kind], archive, api_visibility="private")
        with gr.Tab("For programs"):
            gr.Markdown(PROGRAMS.replace("{url}", url))
            image = page.upload(gr, ["upload"])
            ask = gr.Button("Segment")
            mask, found = gr.File(label="Mask", interactive=False), gr.JSON(label="Shares of the classes")
            ask.click(page.segment, image, [mask, found], api_name="segment")
    return blocks


def _one_image(gr: Any, page: Page) -> None:
    remembered = gr.State([], time_to_live=KEPT_SECONDS)
    names = list(page.classes.names)
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            upload = page.upload(gr, ["upload", "clipboard"], height=240)
            view = gr.Radio(list(VIEWS), value=VIEWS[0], label="View")
        with gr.Column(scale=2, min_width=280), gr.Row():
            results = [
                gr.Image(
                    label=name,
                    interactive=False,
                    format="png",
                    buttons=["download", "fullscreen"],
                    elem_id=f"result-{index}",
                    min_width=280,
                )
                for index, name in enumerate(page.names)
            ]
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            opacity = gr.Slider(0, 100, 55, step=5, label="Opacity of the overlay, in percent")
            kind = gr.Radio(kinds(), value=MASK, label=KIND)
            file = gr.File(label="To download", interactive=False)
        with gr.Column(scale=1, min_width=280):
            shown = gr.CheckboxGroup(names, value=names, label="Classes that are shown", elem_id="shown")
        with gr.Column(scale=1, min_width=280):
            table = gr.HTML(legend([], page.names, page.classes))
    choices = [view, shown, opacity]

    def show(*given: Any) -> Any:
        pictures = page.show(*given)
        return pictures if len(pictures) > 1 else pictures[0]  # a single output takes no list

    upload.change(page.look, [upload, kind, *choices], [remembered, table, file, *results], api_visibility="private")
    kind.change(page.file, [remembered, upload, kind], file, api_visibility="private", show_progress="hidden")
    for choice in choices:
        event = choice.release if choice is opacity else choice.change
        event(show, [remembered, *choices], results, api_visibility="private", show_progress="hidden")


def serve(config: AppConfig, console: Console, block: bool = True) -> Any:
    """Serve the page until it is interrupted.

    Args:
        config: The runs, and where and how to serve.
        console: Where to say the address.
        block: False returns as soon as the server answers.

    Returns:
        The page, `gradio.Blocks`, whose `close()` ends the server.

    Raises:
        ModuleNotFoundError: gradio is not installed.
        OSError: The port is taken.
        ValueError: More than two runs, or runs whose classes differ.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    gr = import_extra("gradio", "app", "the page to try a model")
    if len(config.runs) > 2:
        raise ValueError(f"one run, or two to compare, not {len(config.runs)}")
    predictors = [Predictor.from_run(run, config.device, tiling_config(config)) for run in config.runs]
    page = Page(predictors, short_names([Path(run) for run in config.runs]), config.max_pixels)
    url = f"http://{config.host}:{config.port}"
    blocks = build_page(page, url).queue(max_size=64)
    blocks.launch(
        server_name=config.host,
        server_port=config.port,
        max_file_size=config.max_upload * 1_000_000,
        theme=theme(gr),
        css=STYLE + swatches("#shown", page.classes),
        head=HEAD,
        footer_links=["api"],
        show_error=True,
        share=False,
        ssr_mode=False,
        enable_monitoring=False,
        quiet=True,
        prevent_thread_lock=True,
    )
    console.print(f"{url}  (Ctrl+C ends it)", soft_wrap=True)
    if block:
        blocks.block_thread()
    return blocks
