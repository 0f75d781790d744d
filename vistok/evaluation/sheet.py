"""A sheet of the worst, the median and the best reconstructions of a split, beside their originals."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..data import PictureTransform, Source, pictures_at, to_pixel_values
from ..image_processing import VistokImageProcessor
from ..modeling import VQModelHF
from ..visualization import CAPTION_SIZE, MARGIN, fit
from .tables import COLUMNS

CELL = 192  # pixels: height and width of a picture; six are side by side
_HEADINGS = {"worst": "The worst", "median": "In the middle", "best": "The best"}
_TITLES = {column.key: (column.title, column.better) for column in COLUMNS}


def draw_extremes(model: VQModelHF, source: Source, results: dict[str, Any], name: str) -> Image.Image:
    """The pictures that `evaluate` found to be the worst, the median and the best, and what they become.

    Args:
        model: The tokenizer, in eval mode.
        source: The split that was evaluated.
        results: What `evaluate` returned.
        name: What the tokenizer is called.
    """
    transform = PictureTransform(results["protocol"]["resolution"], results["protocol"]["crop"])

    @torch.no_grad()
    def pair(rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        pixel_values = _pixel_values(source, rows, transform).to(model.device)
        return pixel_values, model.decode_quantized(model.encode(pixel_values).quantized)

    return _draw(pair, results, name)


def draw_folder_extremes(references: Source, made: Source, results: dict[str, Any], name: str) -> Image.Image:
    """The same of pictures in folders.

    Args:
        references: The originals, of `open_folders`.
        made: The reconstructions.
        results: What `evaluate_folders` returned.
        name: What the tokenizer is called.
    """
    transform = PictureTransform(results["protocol"]["resolution"], results["protocol"]["crop"])

    def pair(rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        return _pixel_values(references, rows, transform), _pixel_values(made, rows, transform)

    return _draw(pair, results, name)


def _pixel_values(source: Source, rows: Sequence[int], transform: PictureTransform) -> torch.Tensor:
    chance = np.random.default_rng(0)  # which no crop of an evaluation draws from
    pixels = [transform(picture.decode(), chance) for picture in pictures_at(source, rows)]
    return to_pixel_values(torch.from_numpy(np.stack(pixels)))


def _draw(
    pair: Callable[[Sequence[int]], tuple[torch.Tensor, torch.Tensor]], results: dict[str, Any], name: str
) -> Image.Image:
    """Three lines of originals and reconstructions; `pair` gives both of some rows, in [-1, 1]."""
    extremes, protocol = results["extremes"], results["protocol"]
    by = extremes["by"]
    title, better = _TITLES[by]
    heading = (
        f"{name}: original | reconstruction, of {protocol['pictures']:,} pictures of {protocol['dataset']} "
        f"{protocol['split']}, by {title} ({better} is better)"
    )
    font, bold = ImageFont.load_default(CAPTION_SIZE), ImageFont.load_default(CAPTION_SIZE + 2)
    line = CAPTION_SIZE + 7
    pairs = max(len(extremes[kind]) for kind in _HEADINGS)
    pair_width = 2 * CELL + 2
    width = max(MARGIN + pairs * (pair_width + MARGIN), math.ceil(bold.getlength(heading)) + 2 * MARGIN)
    height = 2 * MARGIN + line + len(_HEADINGS) * (2 * line + CELL + MARGIN)
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), heading, fill="black", font=bold)
    top = 2 * MARGIN + line
    for kind, words in _HEADINGS.items():
        pen.text((MARGIN, top), words, fill="black", font=bold)
        originals, reconstructions = pair([entry["row"] for entry in extremes[kind]])
        left = MARGIN
        for entry, original, made in zip(
            extremes[kind], _pictures(originals), _pictures(reconstructions), strict=True
        ):
            for offset, picture in ((0, original), (CELL + 2, made)):
                sheet.paste(picture, (left + offset, top + line))
            caption = f"row {entry['row']:,}: {title} {entry[by]:.4g}"
            pen.text((left, top + line + CELL + 4), caption, fill=(70, 70, 70), font=font)
            left += pair_width + MARGIN
        top += 2 * line + CELL + MARGIN
    return sheet


def _pictures(pixel_values: torch.Tensor) -> list[Image.Image]:
    return [fit(picture, CELL) for picture in VistokImageProcessor().postprocess(pixel_values.float().cpu())]
