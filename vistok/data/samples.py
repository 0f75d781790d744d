"""The embedded default: crops of the photographs inside the scikit-image wheel, never downloaded.

Each photograph is cut in two by a vertical line: tiles left of it are for training, tiles right of it for
validation, so a validation tile shows nothing that training has seen. The docstrings of `skimage.data` say
who took them and under which licence.
"""

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ..image_decoding import decode_image
from .sources import DatasetError, IndexedSource, Picture

SAMPLES = "samples"  # the name in `open_dataset`
PHOTOGRAPHS = {
    "astronaut": "astronaut.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "hubble": "hubble_deep_field.jpg",
    "ihc": "ihc.png",
    "motorcycle": "motorcycle_left.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
}
LINE_STEP = 16  # pixels: the line keeps off the 8 x 8 blocks of a JPEG, which would leak over it


class TileGrid(NamedTuple):
    """Which tiles a split takes of each photograph's part.

    `sides`: the tiles' sides in pixels. `columns`, `rows`: how many places across and down, evenly spread.
    """

    sides: tuple[int, ...]
    columns: int
    rows: int


# 8 photographs x 3 sides x 100 places = 2,400 training tiles; 8 x 2 x 8 = 128 validation tiles. The narrowest
# validation part (chelsea's) is 163 pixels wide: up to 144 pixels a tile needs no enlargement in validation.
GRIDS = {"train": TileGrid((96, 144, 192), 10, 10), "validation": TileGrid((96, 144), 2, 4)}


class Tile(NamedTuple):
    """A square of a photograph: the photograph's name, the left and upper edge and the side, in pixels."""

    photograph: str
    left: int
    top: int
    side: int


class SampleSource(IndexedSource):
    """Tiles of photographs held in memory; a tile's label is its photograph.

    Args:
        split: "train" or "validation".
        photographs: RGB pictures by name.
        fingerprint: a hash of the files and of how they are cut.
    """

    def __init__(self, split: str, photographs: dict[str, Image.Image], fingerprint: str):
        super().__init__(SAMPLES, split, fingerprint, has_labels=True, label_names=list(photographs))
        self._photographs = photographs
        # In turn, so that the first tiles of a sheet or a limited evaluation show every photograph.
        each = [tiles_of(name, image.width, image.height, split) for name, image in photographs.items()]
        self.tiles = [tile for tiles in zip(*each, strict=True) for tile in tiles]

    @property
    def num_rows(self) -> int:
        """How many tiles there are."""
        return len(self.tiles)

    def read(self, row: int) -> Picture:
        """Return tile `row`, in `[0, num_rows)`."""
        name, left, top, side = self.tiles[row]
        image = self._photographs[name].crop((left, top, left + side, top + side))
        return Picture(row, image, self.label_names.index(name))


def open_samples(split: str) -> SampleSource:
    """Open a split of the photographs inside the installed scikit-image.

    Raises:
        DatasetError: scikit-image is not installed or lacks a photograph, or there is no such split.
    """
    if split not in GRIDS:
        raise DatasetError(
            f"dataset {SAMPLES!r} has no split {split!r}, it has: {', '.join(GRIDS)}; choose one of them"
        )
    files = photograph_files()
    described = [[name, hashlib.sha256(data).hexdigest()] for name, data in files.items()]
    fingerprint = hashlib.sha256(json.dumps([described, GRIDS[split], split]).encode()).hexdigest()[:16]
    return SampleSource(split, {name: decode_image(data) for name, data in files.items()}, fingerprint)


def photograph_files() -> dict[str, bytes]:
    """Return the photographs' files, JPEG or PNG, by name.

    Raises:
        DatasetError: scikit-image is not installed or lacks a photograph.
    """
    spec = importlib.util.find_spec("skimage")  # found, not imported: only its files are needed
    if spec is None or spec.origin is None:
        raise DatasetError('the sample photographs need scikit-image: pip install "vistok[train]"')
    folder = Path(spec.origin).parent / "data"
    try:
        return {name: (folder / file).read_bytes() for name, file in PHOTOGRAPHS.items()}
    except OSError as error:
        raise DatasetError(
            f"scikit-image lacks {error.filename}: pip install --force-reinstall scikit-image"
        ) from error


def tiles_of(photograph: str, width: int, height: int, split: str) -> list[Tile]:
    """Return a split's tiles of a photograph in pixels: its left two thirds train, the rest validates."""
    line = width * 2 // 3 // LINE_STEP * LINE_STEP
    left, right = (0, line) if split == "train" else (line, width)
    grid = GRIDS[split]
    return [
        Tile(photograph, x, y, side)
        for side in grid.sides
        for y in _spread(0, height - side, grid.rows)
        for x in _spread(left, right - side, grid.columns)
    ]


def _spread(first: int, last: int, count: int) -> list[int]:
    """Return `count` integers evenly spread over `[first, last]`."""
    return [first + (last - first) * i // (count - 1) for i in range(count)]
