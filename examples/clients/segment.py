"""Segment images with a model that `rmiseg export` wrote, without PyTorch and without rmiseg.

    pip install onnxruntime numpy pillow
    python segment.py model.onnx photo.jpg result.png

The names and colors of the classes, and what the input is, are in the file of the model.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main(model: str, image: str, result: str) -> None:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    if about.get("normalization") != "inside" or not about["input"].startswith("RGB"):
        raise SystemExit(
            f"{model} takes {about.get('input', 'unknown input')}; this program gives RGB images as they are"
        )
    pixels = np.asarray(ImageOps.exif_transpose(Image.open(image)).convert("RGB"))
    (logits,) = session.run(None, {"image": pixels.transpose(2, 0, 1)[None]})
    ids = logits[0].argmax(axis=0).astype(np.uint8)
    mask = Image.fromarray(ids)
    mask.putpalette(np.asarray(json.loads(about["palette"]), np.uint8).tobytes())
    mask.save(result)
    for index, name in enumerate(json.loads(about["classes"])):
        print(f"{name}: {100 * (ids == index).mean():.2f} %")


if __name__ == "__main__":
    main(*sys.argv[1:])
