"""Pictures of tokens: a token map as coloured squares, and sheets of original | reconstruction | tokens."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from .image_processing import VistokImageProcessor

CELL = 256  # pixels: the height of a row of a sheet, a usual resolution of tokenizers
MARGIN = 12  # pixels around everything on a sheet
CAPTION_SIZE = 15  # pixels: Pillow's own font is readable from 12
# Black, violet, red, orange, pale yellow: evenly brighter, so that it reads in gray and to the colour-blind.
_HEAT = ((0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191))


def draw_tokens(tokens: torch.Tensor | np.ndarray, codebook_size: int, scale: int = 16) -> Image.Image:
    """Draws the tokens of one picture: a square per token, a colour per codebook entry.

    An entry has the same colour in every picture and every run. Neighbouring entries get far apart hues;
    with many entries colours come close, so equal colour does not prove equal tokens.

    Args:
        tokens: integers `(h, w)`; `(K, h, w)`, K codebooks drawn side by side; or `(n,)`, a sequence drawn
            row by row in a near-square block, the places behind its end left white.
        codebook_size: number of entries; tokens are in `[0, codebook_size)`, up to 2^62.
        scale: pixels per token side.

    Returns:
        An RGB picture, `h * scale` pixels high and `w * scale` wide; K codebooks have white gaps between.

    Raises:
        ValueError: not integers, another shape, or a token out of range.

    Example:
        >>> draw_tokens(torch.arange(12).view(3, 4), codebook_size=12, scale=10).size
        (40, 30)
    """
    tokens = np.asarray(tokens.detach().cpu() if isinstance(tokens, torch.Tensor) else tokens)
    if not np.issubdtype(tokens.dtype, np.integer) or tokens.ndim not in (1, 2, 3) or tokens.size == 0:
        raise ValueError(
            f"Expected the integer tokens of one picture, (n,), (h, w) or (K, h, w), got {tokens.dtype} "
            f"{tokens.shape}: pass tokens[0] of a batch."
        )
    if scale < 1:
        raise ValueError(f"Expected a scale of at least 1 pixel per token, got {scale}.")
    outside = np.argwhere((tokens < 0) | (tokens >= codebook_size))
    if len(outside):
        place = tuple(int(index) for index in outside[0])
        raise ValueError(f"Expected tokens in [0, {codebook_size}), got {tokens[place]} at {place}.")

    colours = _colours(tokens)
    if tokens.ndim == 1:
        width = math.ceil(math.sqrt(len(tokens)))
        height = math.ceil(len(tokens) / width)
        block = np.full((height * width, 3), 255, np.uint8)
        block[: len(tokens)] = colours
        colours = block.reshape(height, width, 3)
    maps = colours[None] if colours.ndim == 3 else colours
    squares = maps.repeat(scale, axis=1).repeat(scale, axis=2)
    gap = np.full((squares.shape[1], max(2, scale // 2), 3), 255, np.uint8)
    columns = [column for one in squares for column in (one, gap)][:-1]
    return Image.fromarray(np.concatenate(columns, axis=1))


def draw_sheet(
    originals: torch.Tensor | Sequence[Image.Image],
    reconstructions: torch.Tensor | Sequence[Image.Image],
    tokens: torch.Tensor | np.ndarray | None,
    codebook_size: int,
    cell: int = CELL,
) -> Image.Image:
    """Draws a sheet to judge a tokenizer by: a row per picture, original | reconstruction | tokens.

    Small pictures are enlarged by whole factors without smoothing, so that one sees the pixels; large ones
    are reduced to `cell`.

    Args:
        originals: pixel values, float `(B, 3, H, W)` in [-1, 1], or B PIL pictures.
        reconstructions: the same, of the same number.
        tokens: integers `(B, *token_shape)`; None, for a model without tokens, leaves the third column out.
        codebook_size: number of entries; tokens are in `[0, codebook_size)`.
        cell: the largest height and width of a picture on the sheet, in pixels.

    Returns:
        An RGB picture on a white ground.

    Raises:
        ValueError: no pictures, numbers that differ, tokens out of range, or pixel values that are none.

    Example:
        >>> pixel_values = torch.zeros(2, 3, 64, 64)
        >>> draw_sheet(pixel_values, pixel_values, torch.zeros(2, 8, 8, dtype=torch.int64), 1000).size
        (816, 570)
    """
    columns = [_pictures(originals), _pictures(reconstructions)]
    captions = ["original", "reconstruction"]
    if tokens is not None:
        columns.append([draw_tokens(one, codebook_size, _token_scale(one.shape, cell)) for one in tokens])
        shape = " x ".join(str(length) for length in tokens.shape[1:])
        captions.append(f"tokens: {shape}, {codebook_size:,} entries")
    if not columns[0] or len({len(column) for column in columns}) > 1:
        counts = [len(column) for column in columns]
        raise ValueError(f"Expected as many originals, reconstructions and tokens, at least 1, got {counts}.")
    columns[:2] = [[fit(picture, cell) for picture in column] for column in columns[:2]]

    font = ImageFont.load_default(CAPTION_SIZE)
    caption_widths = [math.ceil(font.getlength(caption)) for caption in captions]
    widths = [
        max(needed, *(picture.width for picture in column))
        for needed, column in zip(caption_widths, columns, strict=True)
    ]
    heights = [max(picture.height for picture in row) for row in zip(*columns, strict=True)]
    caption_height = CAPTION_SIZE + 7  # room for the descenders of p and g, and a little air
    width = sum(widths) + MARGIN * (len(widths) + 1)
    height = caption_height + sum(heights) + MARGIN * (len(heights) + 1)
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    left = MARGIN
    for caption, column, column_width in zip(captions, columns, widths, strict=True):
        pen.text((left, MARGIN), caption, fill=(70, 70, 70), font=font)
        top = MARGIN + caption_height
        for picture, row_height in zip(column, heights, strict=True):
            sheet.paste(picture, (left, top))
            top += row_height + MARGIN
        left += column_width + MARGIN
    return sheet


def draw_difference(original: Image.Image, reconstruction: Image.Image, amplify: float = 4) -> Image.Image:
    """Draws where two pictures differ: black where they are equal, pale yellow where they are far apart.

    Args:
        original: An RGB picture.
        reconstruction: An RGB picture of the same size.
        amplify: The palest colour stands for mean differences over the channels of `255 / amplify` and more.

    Returns:
        An RGB picture of that size.

    Raises:
        ValueError: The sizes differ, or `amplify` is not above 0.

    Example:
        >>> draw_difference(Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8))).getpixel((0, 0))
        (0, 0, 4)
    """
    if original.size != reconstruction.size:
        raise ValueError(f"Expected pictures of one size, got {original.size} and {reconstruction.size}.")
    if amplify <= 0:
        raise ValueError(f"amplify must be above 0, got {amplify}.")
    a, b = (np.asarray(picture.convert("RGB"), np.float32) for picture in (original, reconstruction))
    heat = np.clip(np.abs(a - b).mean(-1) * amplify / 255, 0, 1)
    stops = np.linspace(0, 1, len(_HEAT))
    channels = [np.interp(heat, stops, channel) for channel in zip(*_HEAT, strict=True)]
    return Image.fromarray(np.stack(channels, -1).round().astype(np.uint8))


def draw_close_up(
    pictures: Sequence[Image.Image], middle: Sequence[int], side: int = 64, scale: int = 5
) -> Image.Image:
    """Draws the same part of several pictures side by side, enlarged so that one sees the pixels.

    Args:
        pictures: RGB pictures of one size.
        middle: Which pixel, across and down, is in the middle, as far as the border allows.
        side: Pixels of the part's height and width; less where the pictures are smaller.
        scale: By how much they are enlarged.

    Returns:
        An RGB picture on a white ground.

    Example:
        >>> draw_close_up([Image.new("RGB", (96, 80))] * 2, middle=(0, 40)).size
        (650, 320)
    """
    sizes = [min(side, length) for length in pictures[0].size]
    left, top = (
        min(max(0, at - size // 2), length - size)
        for at, size, length in zip(middle, sizes, pictures[0].size, strict=True)
    )
    width, height = (size * scale for size in sizes)
    gap = 2 * scale
    sheet = Image.new("RGB", (len(pictures) * (width + gap) - gap, height), "white")
    for place, picture in enumerate(pictures):
        part = picture.crop((left, top, left + sizes[0], top + sizes[1]))
        sheet.paste(part.resize((width, height), Image.Resampling.NEAREST), (place * (width + gap), 0))
    return sheet


def mark_places(picture: Image.Image, marked: np.ndarray, chosen: tuple[int, int], scale: int) -> Image.Image:
    """Darkens a picture except at some places of its token grid, and frames one of them.

    Args:
        picture: An RGB picture, from its upper left corner on `scale` pixels per place.
        marked: bool `(rows, columns)`, which places stay bright.
        chosen: Row and column of the place to frame.
        scale: Pixels per place.

    Returns:
        An RGB picture of the same size.

    Example:
        >>> marked = np.array([[True, False]])
        >>> picture = mark_places(Image.new("RGB", (32, 16), "white"), marked, chosen=(0, 0), scale=16)
        >>> picture.getpixel((8, 8)), picture.getpixel((24, 8))
        ((255, 255, 255), (89, 89, 89))
    """
    bright = marked.repeat(scale, 0).repeat(scale, 1)[: picture.height, : picture.width, None]
    pixels = np.asarray(picture.convert("RGB"))
    drawn = Image.fromarray(np.where(bright, pixels, (pixels * 0.35).round().astype(np.uint8)))
    left, top = chosen[1] * scale, chosen[0] * scale
    pen = ImageDraw.Draw(drawn)
    for distance, colour in ((1, "black"), (2, "white"), (3, "white"), (4, "black")):  # seen on any ground
        corners = (left - distance, top - distance, left + scale - 1 + distance, top + scale - 1 + distance)
        pen.rectangle(corners, outline=colour)
    return drawn


def _colours(tokens: np.ndarray) -> np.ndarray:
    """Uint8 `(..., 3)` for integers `(...)`, in wrapping uint64 arithmetic: exact for every token."""
    token = tokens.astype(np.uint64)
    # Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4): 2^64 / golden ratio spreads
    # consecutive numbers best around a circle, here that of hues.
    hue = (token * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(40)) / 2**24
    # Saturation and value from other bits (the finalizer of splitmix64): the eye tells some 100 hues apart.
    mixed = (token ^ (token >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    saturation = 0.35 + 0.5 * (mixed & np.uint64(0xFF)) / 255
    value = 0.55 + 0.45 * (mixed >> np.uint64(8) & np.uint64(0xFF)) / 255
    # HSV to RGB: a channel falls from `value` as the hue is further from its own.
    distance = np.abs((hue[..., None] * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    channels = value[..., None] * (1 - saturation[..., None] * (1 - np.clip(distance, 0, 1)))
    return (channels * 255).round().astype(np.uint8)


def _pictures(pictures: torch.Tensor | Sequence[Image.Image]) -> list[Image.Image]:
    if isinstance(pictures, torch.Tensor | np.ndarray):
        return VistokImageProcessor().postprocess(pictures)
    return [picture.convert("RGB") for picture in pictures]


def fit(picture: Image.Image, cell: int) -> Image.Image:
    """A picture at most `cell` pixels high and wide: enlarged by a whole factor, unsmoothed, or reduced."""
    longest = max(picture.size)
    if longest > cell:
        size = tuple(max(1, round(length * cell / longest)) for length in picture.size)
        return picture.resize(size, Image.Resampling.LANCZOS)
    factor = cell // longest
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _token_scale(shape: tuple[int, ...], cell: int) -> int:
    """Pixels per token that make a map as large as a picture; several maps are at most two cells wide."""
    if len(shape) == 1:
        return max(1, cell // math.ceil(math.sqrt(shape[0])))
    maps = shape[0] if len(shape) == 3 else 1
    return max(1, min(cell // max(shape[-2:]), 2 * cell // (maps * shape[-1])))
