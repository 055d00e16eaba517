"""Pictures into tiles and pixels: InternVL's dynamic tiling, CLIP's normalization."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from sottovoce.runtime.errors import InputError
from sottovoce.runtime.manifest import ImageFrontEnd

Pixels = npt.NDArray[np.float32]
ImageSource = str | os.PathLike[str] | Image.Image | npt.NDArray[np.uint8]

MAX_FILE_BYTES = 256 << 20
MAX_PIXELS = 100_000_000
THUMBNAIL_MIN_TILES = 2
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""What is decoded. Not all that Pillow can: its EPS reader, for one, runs another program on the file."""


def read_image(source: ImageSource) -> Image.Image:
    """Read a picture as RGB (height × width × 3, 8 bits): of an animation the first frame, transparency left out.

    The orientation tag of a photograph is not applied: the model was trained without.

    Raises:
        InputError: missing, not a picture, damaged, or of more than a hundred million pixels.
    """
    if isinstance(source, Image.Image):
        with _decoding(None):
            return _as_rgb(source, None)
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            found = f"a picture of shape {source.shape} and type {source.dtype}"
            raise InputError(f"{found}, expected (height, width, 3) and uint8")
        return _as_rgb(Image.fromarray(source), None)
    return _from_file(Path(source))


def _from_file(path: Path) -> Image.Image:
    if not path.is_file():
        raise InputError("there is no such picture", file=path, fix="give the path of a PNG, JPEG or WebP file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"more than {MAX_FILE_BYTES >> 20} MB", file=path, fix="make the picture smaller")
    with _decoding(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own bound is below Pillow's
        with Image.open(path, formats=FORMATS) as picture:
            return _as_rgb(picture, path)


@contextmanager
def _decoding(path: Path | None) -> Iterator[None]:
    try:
        yield
    except UnidentifiedImageError as problem:
        raise InputError("this is not a picture", file=path, fix="give a PNG, JPEG or WebP file") from problem
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as problem:
        raise InputError(f"the picture cannot be decoded: {problem}", file=path, fix="save it again") from problem


def _as_rgb(picture: Image.Image, path: Path | None) -> Image.Image:
    width, height = picture.size
    if width * height > MAX_PIXELS or width * height == 0:
        message = f"{width}×{height} pixels, expected 1 to {MAX_PIXELS}"
        raise InputError(message, file=path, fix="make the picture smaller")
    if picture.mode == "F":
        raise InputError("the pixels are fractions, expected 8 or 16 bits", file=path, fix="save it as a PNG")
    if picture.mode.startswith("I"):  # Pillow would cut 16 bits off at 255: all white
        sixteen = np.asarray(picture).clip(0, 0xFFFF)
        picture = Image.fromarray((sixteen >> 8).astype(np.uint8))
    return picture.convert("RGB")


def choose_grid(width: int, height: int, front_end: ImageFrontEnd) -> tuple[int, int]:
    """The (columns, rows) of tiles whose shape is closest to the picture's (InternVL 1.5, Chen et al. 2024).

    Among equally close grids a larger one is taken if the picture has more than half of its pixels.
    """
    sizes = range(1, front_end.max_tiles + 1)
    grids = {(i, j) for i in sizes for j in sizes if front_end.min_tiles <= i * j <= front_end.max_tiles}
    best, best_distance = (1, 1), float("inf")
    for columns, rows in sorted(grids, key=lambda grid: (grid[0] * grid[1], grid)):
        distance = abs(width / height - columns / rows)
        large_enough = width * height > 0.5 * front_end.image_size**2 * columns * rows
        if distance < best_distance or (distance == best_distance and large_enough):
            best, best_distance = (columns, rows), distance
    return best


def tile_image(picture: Image.Image, front_end: ImageFrontEnd) -> list[Image.Image]:
    """Cut a picture into tiles of image_size², row by row; the whole picture as a last tile if there are several."""
    size = front_end.image_size
    columns, rows = choose_grid(*picture.size, front_end)
    resized = picture.resize((columns * size, rows * size))
    boxes = [(c * size, r * size, (c + 1) * size, (r + 1) * size) for r in range(rows) for c in range(columns)]
    tiles = [resized.crop(box) for box in boxes]
    if front_end.thumbnail and len(tiles) >= THUMBNAIL_MIN_TILES:
        tiles.append(picture.resize((size, size)))
    return tiles


def pixels(tiles: Sequence[Image.Image], front_end: ImageFrontEnd) -> Pixels:
    """Tiles or frames → (n, 3, S, S): shortest edge resized (bicubic), centre crop, /255, mean and deviation (CLIP)."""
    mean = np.array(front_end.mean, dtype=np.float32)
    std = np.array(front_end.std, dtype=np.float32)
    cut = [_centre(pad_to_square(tile, front_end) if front_end.pad_to_square else tile, front_end) for tile in tiles]
    scaled = np.stack([np.asarray(tile, dtype=np.uint8) for tile in cut]).astype(np.float64) / 255.0
    normalized = (scaled.astype(np.float32) - mean) / std
    return np.ascontiguousarray(normalized.transpose(0, 3, 1, 2))


def pad_to_square(picture: Image.Image, front_end: ImageFrontEnd) -> Image.Image:
    """Centre a picture on a square of the mean colour."""
    width, height = picture.size
    if width == height:
        return picture
    side = max(width, height)
    colour = tuple(int(255 * value) for value in front_end.mean)
    square = Image.new("RGB", (side, side), colour)
    square.paste(picture, ((side - width) // 2, (side - height) // 2))
    return square


def _centre(picture: Image.Image, front_end: ImageFrontEnd) -> Image.Image:
    size = front_end.image_size
    width, height = picture.size
    if min(width, height) != size:
        long_side = int(size * max(width, height) / min(width, height))
        new_size = (size, long_side) if width <= height else (long_side, size)
        picture = picture.resize(new_size, Image.Resampling.BICUBIC)
        width, height = picture.size
    left, top = (width - size) // 2, (height - size) // 2
    return picture if (width, height) == (size, size) else picture.crop((left, top, left + size, top + size))
