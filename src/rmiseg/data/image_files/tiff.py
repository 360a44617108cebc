"""TIFF files of any number of bands, read as a whole or area by area.

Areas take no more memory than the tiles or strips that they lie in. tifffile reads what it has a decoder for, and
rasterio, if it is installed, the rest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from rmiseg.runtime.extras import import_extra

BITS, PHOTOMETRIC, ORIENTATION, SAMPLES, PLANAR, EXTRA, SIGN = 258, 262, 274, 277, 284, 338, 339
"""Numbers of TIFF tags; that of the orientation is EXIF's, too."""
PALETTE, INKS, ALPHA = 3, (5, 6, 8, 9), (1, 2)
"""Values of the tags: colors of a table; CMYK, YCbCr and Lab, which become RGB; extra samples that are alpha."""
GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)
"""Tags of GeoTIFF: pixel scale, tie points, transformation, and the three parts of the coordinate system."""
CACHE = 1 << 28
"""Bytes of decoded tiles or strips that are kept, since neighboring areas need them again."""
GDAL_READS = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34887, 34925, 50000, 50001, 50002)
"""Compressions of TIFF files that rasterio reads: CCITT's, LZW, JPEG, Deflate, PackBits, LERC, LZMA, Zstandard, WebP,
JPEG XL."""
MOST_BYTES = 1 << 31
"""Largest size of a decoded image, or of one of its tiles or strips."""


class Header(NamedTuple):
    """Content of an image file, by its header.

    Attributes:
        size: Height and width, as it is stored.
        bands: Number of bands without alpha; 3 for palettes and all that becomes RGB.
        alpha: True if there is alpha, too.
    """

    size: tuple[int, int]
    bands: int
    alpha: bool


def header_of(tags: Mapping[int, Any], size: tuple[int, int]) -> Header:
    """Return what a TIFF file holds, by its tags."""
    samples, photometric = int(tags.get(SAMPLES, 1)), tags.get(PHOTOMETRIC, 1)
    extra = tags.get(EXTRA, ())
    extra = tuple(extra) if isinstance(extra, tuple | list) else (extra,)
    alphas = sum(int(each) in ALPHA for each in extra)
    colors = samples - len(extra)
    if photometric == PALETTE or photometric in INKS:
        colors = 3
    return Header(size, colors + len(extra) - alphas, alphas > 0)


class TiffImage:
    """The one image of a TIFF file.

    Args:
        path: The file.
        pages: Number of pages that are bands of one image, if there are that many.

    Attributes:
        header: What it holds.
        orientation: Its orientation, 1 to 8; areas are of the image as it is stored.
        photometric: The tag of that name; 0 where zero is white.
        bits: Bits of a value.
        nodata: The value that stands for no data, if the file says so.

    Raises:
        ValueError: It is no TIFF file, holds several images, or needs a decoder that is not installed.
        ModuleNotFoundError: tifffile is not installed.
    """

    def __init__(self, path: Path, pages: int = 1) -> None:
        self.path = path
        tifffile = import_extra("tifffile", "train", f"reading {path}")
        self.file = tifffile.TiffFile(path)
        try:
            own = _own_pages(self.file)
            if len(own) > 1 and len(own) != pages:
                raise ValueError(several(len(own), "pages"))
            self.pages = [page.aspage() for page in own]
            page = self.pages[0]
            tags = {code: tag.value for code in (SAMPLES, PHOTOMETRIC, EXTRA) if (tag := page.tags.get(code))}
            header = header_of(tags, (page.imagelength, page.imagewidth))
            self.header = header._replace(bands=len(own)) if len(own) > 1 else header
            self.samples = int(page.samplesperpixel) if len(own) == 1 else len(own)
            self.planar = page.planarconfig == 2 and page.samplesperpixel > 1
            self.dtype = page.dtype
            self.photometric, self.bits = int(page.photometric), int(page.bitspersample)
            if self.dtype is not None and np.dtype(self.dtype).kind == "c":
                raise ValueError("its values are complex numbers; save their parts, or their amounts, as bands")
            orientation = page.tags.get(ORIENTATION)
            self.orientation = valid_orientation(orientation.value if orientation else 1)
            self.nodata = _nodata(page)
            self._kept: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()
            self._bytes = 0
            self._other = None if _is_decoded(tifffile, page) else _open_otherwise(path, page)
        except BaseException:
            self.file.close()
            raise

    @property
    def geography(self) -> list[tuple[int, int, int, Any, bool]]:
        """Return the tags that say where on earth it lies, as tifffile writes them; none if the image is turned."""
        if self.orientation != 1:
            return []
        found = [self.pages[0].tags.get(code) for code in GEO_TAGS]
        return [(tag.code, int(tag.dtype), tag.count, tag.value, True) for tag in found if tag is not None]

    @property
    def part_bytes(self) -> int:
        """Bytes of the largest part that must be decoded at once: of a tile or a strip; 0 if nothing is packed."""
        page = self.pages[0]
        if all(page.is_final for page in self.pages):
            return 0
        rows, columns = _chunk(page)
        return int(rows * columns * np.dtype(page.dtype).itemsize * (1 if self.planar else page.samplesperpixel))

    def read(self, top: int = 0, left: int = 0, height: int | None = None, width: int | None = None) -> NDArray[Any]:
        """Return the values of an area, (height, width, samples), alpha among them.

        Raises:
            ValueError: It is damaged, or an area or a tile of it is larger than `MOST_BYTES`.
        """
        height = self.header.size[0] - top if height is None else height
        width = self.header.size[1] - left if width is None else width
        _check_size(height * width * self.samples * np.dtype(self.dtype or np.uint8).itemsize)
        if self._other is not None:
            window = ((top, top + height), (left, left + width))
            return np.moveaxis(self._other.read(window=window), 0, -1)
        values = np.zeros((height, width, self.samples), self.dtype)
        if all(page.is_final for page in self.pages):  # as it is in memory: of any size, whatever its strips
            for number, page in enumerate(self.pages):
                bands = slice(None) if len(self.pages) == 1 else slice(number, number + 1)
                values[..., bands] = self._mapped(page)[top : top + height, left : left + width]
            return values
        rows, columns = _chunk(self.pages[0])
        across = -(-self.header.size[1] // columns)
        down = -(-self.header.size[0] // rows)
        for plane in range(self.samples if self.planar or len(self.pages) > 1 else 1):
            number, page = (0, plane) if len(self.pages) > 1 else (plane, 0)
            bands = slice(None) if not self.planar and len(self.pages) == 1 else slice(plane, plane + 1)
            for y in range(top // rows, -(-(top + height) // rows)):
                for x in range(left // columns, -(-(left + width) // columns)):
                    part = self._segment(page, (number * down + y) * across + x)
                    if part is not None:
                        _paste(values[..., bands], part, (y * rows - top, x * columns - left))
        return values

    def _mapped(self, page: Any) -> NDArray[Any]:
        """The values of a page that are in the file as they are in memory, (H, W, samples), of which none is read."""
        (height, width), kind = self.header.size, np.dtype(self.dtype).newbyteorder(page.parent.byteorder)
        shape = (page.samplesperpixel, height, width) if self.planar else (height, width, page.samplesperpixel)
        mapped = np.memmap(self.path, kind, "r", page.dataoffsets[0], shape)
        return np.moveaxis(mapped, 0, -1) if self.planar else mapped

    def _segment(self, page: int, index: int) -> NDArray[Any] | None:
        """A decoded tile or strip (h, w, samples), from memory if it was needed just before; None if it is empty."""
        key = (page, index)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        own = self.pages[page]
        _check_size(self.part_bytes)
        if own.databytecounts[index] == 0:
            return None
        handle = own.parent.filehandle
        handle.seek(own.dataoffsets[index])
        data = handle.read(own.databytecounts[index])
        decoded, _, shape = own.decode(data, index, jpegtables=own.jpegtables)
        part: NDArray[Any] = decoded[0, : shape[1], : shape[2]]
        self._kept[key] = part
        self._bytes += part.nbytes
        while self._bytes > CACHE and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return part

    def close(self) -> None:
        """Close the file."""
        self.file.close()
        if self._other is not None:
            self._other.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def stored_nodata(path: Path) -> float | None:
    """Return the value that stands for no data in a TIFF file, if it says so, whatever decodes its pixels.

    Raises:
        ValueError: It is no TIFF file.
        ModuleNotFoundError: tifffile is not installed.
    """
    with import_extra("tifffile", "train", f"reading {path}").TiffFile(path) as file:
        return next((_nodata(page.aspage()) for page in _own_pages(file)), None)


def valid_orientation(value: Any) -> int:
    """Return an orientation from 1 to 8; programs take others, such as the 0 that some write, for 1."""
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def is_tiff(path: Path) -> bool:
    """Return whether a file is a TIFF file, by its first bytes."""
    with open(path, "rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def several(number: int, unit: str, kind: str = "image") -> str:
    """Say that a file holds several images.

    Args:
        number: Number of them.
        unit: pages or frames.
        kind: image or mask, that it was taken for.
    """
    hint = f"; if they are bands of one image, write `bands: {number}` into dataset.yaml"
    bands = hint if (unit, kind) == ("pages", "image") else ""
    return f"it holds {number} {unit}, which are several images: save each as a file of its own{bands}"


def _own_pages(file: Any) -> list[Any]:
    """Pages of a file that are images, and not smaller copies of one, or masks of transparency."""
    return [page for page in file.pages if not int(page.aspage().subfiletype) & 5]


def _chunk(page: Any) -> tuple[int, int]:
    """Height and width of the tiles of a page, or of its strips."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip or page.imagelength, page.imagelength), page.imagewidth


def _paste(values: NDArray[Any], part: NDArray[Any], corner: tuple[int, int]) -> None:
    """Copy what of a part, whose corner is there in the values, lies inside of them."""
    (top, left), (height, width) = corner, values.shape[:2]
    source = part[max(0, -top) : height - top, max(0, -left) : width - left]
    top, left = max(0, top), max(0, left)
    values[top : top + source.shape[0], left : left + source.shape[1]] = source


def _check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise ValueError(
            f"{size / 1e9:.1f} GB would have to be held at once, and at most {MOST_BYTES / 1e9:.1f} GB are: save it as "
            f"a tiled TIFF file, such as by `gdal_translate -co TILED=YES`, and use --window"
        )


def _nodata(page: Any) -> float | None:
    tag = page.tags.get(42113)  # GDAL_NODATA
    try:
        return None if tag is None else float(tag.value)
    except ValueError:
        return None


def _is_decoded(tifffile: Any, page: Any) -> bool:
    """Return whether tifffile has what decodes a page; the rest comes with the package imagecodecs."""
    try:
        tifffile.TIFF.UNPREDICTORS[page.predictor]
        tifffile.TIFF.DECOMPRESSORS[page.compression](b"")
    except (KeyError, ImportError):
        return False
    except Exception:  # of what is nothing to decode
        return True
    return True


def _open_otherwise(path: Path, page: Any) -> Any:
    compression = getattr(page.compression, "name", "")
    if not compression or int(page.compression) not in GDAL_READS:
        kind = compression or str(page.compression)[:40]
        raise ValueError(f"its compression, {kind}, is none that is read: save it anew as PNG or TIFF; is it damaged?")
    rasterio = import_extra("rasterio", "geo", f"reading {path}, of the compression {compression},")
    return rasterio.open(path)
