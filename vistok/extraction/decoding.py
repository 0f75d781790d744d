"""Tokens back to pictures: PNG files, or the `.npz` that evaluators of generators read."""

import os
import shutil
import zipfile
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..files import flush, temporary_beside
from ..image_processing import VistokImageProcessor
from ..modeling import VQModelHF
from .reader import TokenDataset, load_tokens

FORMATS = ("png", "npz")


def decode_tokens(
    tokens: str | Path,
    model: VQModelHF,
    output: str | Path,
    *,
    format: str = "png",
    limit: int | None = None,
    batch_size: int = 64,
) -> dict[str, Any]:
    """Decodes the rows of a dataset of tokens, in their order.

    Args:
        tokens: The folder of the tokens.
        model: The tokenizer that made them, in float32.
        output: A new folder for `"png"`: `{number of the row}.png`, and of several views all. A new file for
            `"npz"`: `arr_0`, uint8 `(N, H, W, 3)`, as ADM's evaluator and its descendants read.
        format: `"png"` or `"npz"`.
        limit: Decode the first so many rows only.
        batch_size: Rows at a time.

    Returns:
        `path` and `pictures`.

    Raises:
        ValueError: The tokens are of another tokenizer, or the output is there already.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    for name, value in (("batch_size", batch_size), ("limit", limit)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    final = Path(output)
    if final.exists() and not (format == "png" and final.is_dir() and not any(final.iterdir())):
        raise ValueError(f"{final} is there already: delete it, or choose another")
    dataset = load_tokens(tokens, model=model)
    if format == "npz" and dataset.plan.has_buckets:
        raise ValueError("Pictures of several shapes do not fit one array: use --format png")
    count = len(dataset) if limit is None else min(limit, len(dataset))
    pictures = decoded(dataset, model, count, batch_size)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(final)
    try:
        write_png(temporary, pictures) if format == "png" else write_npz(temporary, pictures, count)
        if final.is_dir():
            final.rmdir()  # empty
        os.replace(temporary, final)
    except BaseException:
        shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)
        raise
    flush(final.parent)
    return {"path": str(final), "pictures": count}


@torch.inference_mode()
def decoded(dataset: TokenDataset, model: VQModelHF, count: int, batch_size: int) -> Iterator[np.ndarray]:
    """Yield the first `count` rows as pictures, uint8 `(H, W, 3)`."""
    rows: list[dict[str, Any]] = []
    for i in range(count):
        row = dataset[i]
        if rows and (len(rows) == batch_size or _shape(row) != _shape(rows[0])):
            yield from _pictures(dataset, model, rows)
            rows = []
        rows.append(row)
    if rows:
        yield from _pictures(dataset, model, rows)


def _shape(row: dict[str, Any]) -> tuple[int | None, int | None]:
    return row.get("height"), row.get("width")


def _pictures(dataset: TokenDataset, model: VQModelHF, rows: list[dict[str, Any]]) -> list[np.ndarray]:
    tokens = dataset.to_grid(torch.stack([row["tokens"] for row in rows]), *_shape(rows[0]))
    return VistokImageProcessor().postprocess(model.decode(tokens.to(model.device)), output_type="np")


def write_png(folder: Path, pictures: Iterator[np.ndarray]) -> None:
    """Writes `00000000.png` and so on into a new folder."""
    folder.mkdir()
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(folder / f"{number:08d}.png")


def write_npz(path: Path, pictures: Iterator[np.ndarray], count: int) -> None:
    """Writes `arr_0`, uint8 `(count, H, W, 3)`, without holding it in memory."""
    first = list(islice(pictures, 1))
    shape = (count, *(first[0].shape if first else (0, 0, 3)))
    with zipfile.ZipFile(path, "w") as archive, archive.open("arr_0.npy", "w", force_zip64=True) as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for pixels in chain(first, pictures):
            file.write(pixels.tobytes())
