"""Files that keep the values of a mask nearly, and not exactly, by how they are packed and not by their names."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from rmiseg.data.image_files.deep import netpbm_most
from rmiseg.data.image_files.tiff import TiffImage

COMPRESSION = 259
"""Number of the TIFF tag of the compression."""
LOSSY_TIFF = {6: "JPEG", 7: "JPEG", 34892: "JPEG", 34712: "JPEG 2000", 33003: "JPEG 2000", 33004: "JPEG 2000"} | {
    33005: "JPEG 2000",
    50001: "WebP",
    34887: "LERC",
}
"""Compressions of TIFF files that do not, or need not, keep values."""
LOSSY_FORMATS = {"JPEG": "JPEG", "MPO": "JPEG", "AVIF": "AVIF", "JPEG2000": "JPEG 2000"}


def check_exact(image: Image.Image, path: Path) -> None:
    """See whether a file keeps values exactly.

    Args:
        image: The image in it, not yet loaded.
        path: The file.

    Raises:
        ValueError: it does not.
    """
    kind = LOSSY_FORMATS.get(image.format or "")
    if image.format == "TIFF":
        kind = LOSSY_TIFF.get(image.tag_v2.get(COMPRESSION, 1))  # type: ignore[attr-defined]  # of TIFF files
    if image.format == "WEBP" and _holds_lossy_webp(path):
        kind = "WebP"
    if kind:
        raise ValueError(_not_exact(kind))
    if image.mode == "RGB" and netpbm_most(image) not in (0, 255):
        raise ValueError(f"its colors go up to {netpbm_most(image)} and not to 255: save it as PNG")


def check_exact_tiff(path: Path) -> None:
    """See whether a TIFF file that Pillow does not know keeps values exactly.

    Raises:
        ValueError: it does not.
    """
    with TiffImage(path) as image:
        kind = LOSSY_TIFF.get(int(image.pages[0].compression))
    if kind:
        raise ValueError(_not_exact(kind))


def _holds_lossy_webp(path: Path) -> bool:
    """Tell by the chunks of a WebP file: VP8L is lossless, VP8 is not."""
    with open(path, "rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            if head[:4] in (b"VP8 ", b"VP8L"):
                return head[:4] == b"VP8 "
            size = int.from_bytes(head[4:], "little")
            file.seek(size + size % 2, 1)
    return True


def _not_exact(kind: str) -> str:
    return (
        f"it is packed as {kind}, which does not keep mask values exactly: save masks as PNG. If there is no other, "
        f"`nearest: true` in dataset.yaml reads each value as the nearest that is known, where these are 64 or more "
        f"apart, as in `{{background: 0, defect: 255}}`"
    )
