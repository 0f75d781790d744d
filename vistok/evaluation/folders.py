"""Pictures that anybody's tokenizer has reconstructed, measured by the protocol of our own."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..data import DatasetError, IndexedSource, Picture, PictureTransform
from ..data.opening import FILE_BUILDERS
from ..data.stream import OnError
from ..image_decoding import UnreadableImageError
from .measurement import Measurement
from .measures import Measures
from .protocol import batches_of_rank, check_positive, describe_source, finished, passing

_SUFFIXES = {suffix for suffix, builder in FILE_BUILDERS.items() if builder == "imagefolder"}


class FolderSource(IndexedSource):
    """The pictures of a folder and those below it, by their names.

    Args:
        folder: The folder.
        names: Paths in it without suffixes, those to take; by default all.

    Raises:
        DatasetError: It holds no pictures, two of one name, or lacks some of `names`.
    """

    def __init__(self, folder: str | Path, names: list[str] | None = None):
        root = Path(folder)
        if not root.is_dir():
            raise DatasetError(f"{folder} is not a folder of pictures")
        files: dict[str, Path] = {}
        for path in sorted(path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES):
            name = path.relative_to(root).with_suffix("").as_posix()
            if name in files:
                raise DatasetError(f"{folder} holds {name} twice, as {files[name].suffix} and {path.suffix}")
            files[name] = path
        if not files:
            raise DatasetError(f"{folder} holds no pictures ({', '.join(sorted(_SUFFIXES))})")
        missing = [name for name in names or [] if name not in files]
        if missing:
            raise DatasetError(
                f"{folder} lacks {len(missing):,} of {len(names):,} pictures, such as {missing[0]}: both "
                "folders must have the same names, suffixes aside"
            )
        self.names = list(files) if names is None else names
        self.files = [files[name] for name in self.names]
        sizes = [[name, file.stat().st_size] for name, file in zip(self.names, self.files, strict=True)]
        digest = hashlib.sha256(json.dumps(sizes).encode()).hexdigest()[:16]
        super().__init__(str(folder), "all", digest)

    @property
    def num_rows(self) -> int:
        """How many pictures there are."""
        return len(self.files)

    def read(self, row: int) -> Picture:
        """Return picture `row`, in `[0, num_rows)`."""
        return Picture(row, str(self.files[row]), None)

    @property
    def side(self) -> int:
        """The height and width in pixels of the first picture that can be read.

        Raises:
            DatasetError: None can be read, or it is not square.
        """
        for row in range(self.num_rows):
            try:
                width, height = self.read(row).decode().size
            except UnreadableImageError:
                continue
            if width != height:
                raise DatasetError(
                    f"{self.files[row]} has {width} x {height} pixels: reconstructions must be square"
                )
            return width
        raise DatasetError(f"{self.name}: no picture can be read")


class _AsItIs:
    """A picture of the expected size becomes its pixels; nothing is resized or cropped."""

    def __init__(self, width: int, height: int):
        self.size = (width, height)

    def __call__(self, image: Image.Image, generator: np.random.Generator) -> np.ndarray:
        if image.size != self.size:
            raise UnreadableImageError(
                f"expected {self.size[0]} x {self.size[1]} pixels, got {image.size[0]} x {image.size[1]}"
            )
        return np.asarray(image)


def evaluate_folders(
    references: FolderSource,
    made: FolderSource,
    *,
    measures: Measures | None = None,
    crop: str = "center_crop",
    batch_size: int = 64,
    num_workers: int = 0,
    limit: int | None = None,
    expected: int | None = None,
    on_error: OnError = "error",
    progress: bool = True,
) -> dict[str, Any]:
    """Measures the reconstructions in a folder against the originals in another, of the same names.

    Reconstructions are taken as they are. Originals of another size are cropped to theirs, as for `evaluate`.

    Args:
        references: The originals, of `open_folders`.
        made: The reconstructions: square pictures of one size, and lossless files, for a JPEG would be
            measured with its loss.
        measures: The metrics; by default L1, MSE, PSNR and SSIM.
        crop: How originals of another size are cropped: a key of `protocol.CROPS`.
        batch_size: Pictures at a time.
        num_workers: Processes that decode pictures, for each rank and folder.
        limit: Measure the first so many pictures only.
        expected: How many pictures there must be.
        on_error: What to do where one of a pair cannot be read: `"error"` or `"skip"`, which counts the pair.
        progress: Whether to show a progress bar.

    Returns:
        As `evaluate`, without codebooks and speed.

    Raises:
        ValueError: The folders do not have the same names, a picture cannot be read or has another size.
    """
    check_positive(limit=limit)
    size = made.side
    measures = measures or Measures()
    measurement = Measurement(measures)
    settings = (batch_size, num_workers, limit, on_error)
    of_originals = batches_of_rank(references, PictureTransform(size, crop), *settings)
    of_made = batches_of_rank(made, _AsItIs(size, size), *settings)
    # Both have the same rows in the same batches, each less what cannot be read of it.
    for original, reconstruction in zip(
        passing(of_originals, references, limit, progress), of_made, strict=True
    ):
        lost = torch.cat([original["unreadable_rows"], reconstruction["unreadable_rows"]]).unique()
        measurement.skip(lost)
        a, b = (batch["pixels"][~torch.isin(batch["row"], lost)] for batch in (original, reconstruction))
        if len(a):
            rows = original["row"][~torch.isin(original["row"], lost)]
            measurement.update(rows, b.permute(0, 3, 1, 2).float() / 127.5 - 1, a.permute(0, 3, 1, 2))
    measured = finished(measurement, references, expected, limit)
    protocol = describe_source(references, measured, size, crop, measures, limit)
    protocol["rounding"] = "the reconstructions are files"
    protocol["reconstructions"] = Path(made.name).resolve().name
    protocol["reconstructions_fingerprint"] = made.fingerprint
    return {"metrics": measured["metrics"], "extremes": measured["extremes"], "protocol": protocol}


def open_folders(references: str | Path, reconstructions: str | Path) -> tuple[FolderSource, FolderSource]:
    """Originals and their reconstructions, in the same order.

    Raises:
        DatasetError: The folders do not have the same names.
    """
    originals, made = FolderSource(references), FolderSource(reconstructions)
    if len(made.names) > len(originals.names):
        extra = min(set(made.names) - set(originals.names))
        raise DatasetError(
            f"{references} has {len(originals.names):,} pictures, {reconstructions} {len(made.names):,}, "
            f"such as {extra}: both folders must have the same names, suffixes aside"
        )
    return originals, FolderSource(reconstructions, originals.names)
