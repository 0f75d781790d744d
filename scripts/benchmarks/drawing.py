"""Draws quantizers of points in the plane, step by step, as an animation of panels side by side."""

from pathlib import Path

import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor

from vistok.quantizers.codebook import CodebookQuantizer

SUPERSAMPLING = 3
PANEL, HEADER = 320, 30  # pixels
LEFT, BOTTOM, EXTENT = -2.5, -2.5, 6.0  # of the plane that a panel shows
INK, LINE, POINT, UNUSED, RED, GREEN = "#24292f", "#d5dae0", "#8b95a1", "#a5aeb8", "#d1342f", "#1a7f4b"


def save_animation(path: Path, panels: list[list[Image.Image]]) -> None:
    """Writes panels side by side as a GIF, the last frame held.

    Args:
        path: The file to write.
        panels: For each place from left to right, its frames.
    """
    frames = []
    for side_by_side in zip(*panels, strict=True):
        frame = Image.new("RGB", (len(panels) * PANEL, PANEL + HEADER), "white")
        for place, image in enumerate(side_by_side):
            frame.paste(image, (place * PANEL, 0))
        frames.append(frame)
    palette = _palette()  # one for all frames, so that only what moves is stored
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [80] * len(frames)
    durations[0], durations[-1] = 800, 2400  # milliseconds
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True)


def _palette() -> Image.Image:
    """Our colours, and those between them and the white paper."""
    shades = [
        round(255 + share / 6 * (channel - 255))
        for colour in (INK, LINE, POINT, UNUSED, RED, GREEN)
        for share in range(1, 7)
        for channel in ImageColor.getrgb(colour)
    ]
    palette = Image.new("P", (1, 1))
    palette.putpalette([255, 255, 255, *shades])
    return palette


@torch.no_grad()
def panel(name: str, step: int, quantizer: CodebookQuantizer, x: Tensor, colour: str) -> Image.Image:
    """Points joined to their entries; entries in use are stars, others pale dots."""
    tokens = quantizer.encode(x)[0].tolist()
    places = [_place(point) for point in x[0].t().tolist()]
    table = [_place(entry) for entry in quantizer.table().tolist()]
    size = (SUPERSAMPLING * PANEL, SUPERSAMPLING * (PANEL + HEADER))
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for place, token in zip(places, tokens, strict=True):
        draw.line([place, table[token]], fill=LINE, width=SUPERSAMPLING)
    for place in places:
        draw.circle(place, 2.6 * SUPERSAMPLING, fill=POINT)
    used = set(tokens)
    for token in sorted(range(len(table)), key=used.__contains__):  # those in use on top
        if token in used:
            _star(draw, table[token], 7.5 * SUPERSAMPLING, colour)
        else:
            draw.circle(table[token], 3.4 * SUPERSAMPLING, "white", UNUSED, round(1.4 * SUPERSAMPLING))
    draw.rectangle([0, 0, size[0], SUPERSAMPLING * HEADER], fill="white")
    font = ImageFont.load_default(15 * SUPERSAMPLING)
    middle = SUPERSAMPLING * HEADER // 2
    margin = 12 * SUPERSAMPLING
    draw.text((margin, middle), name, colour, font, anchor="lm")
    draw.text((size[0] // 2, middle), f"step {step}", INK, font, anchor="mm")
    draw.text((size[0] - margin, middle), f"used {len(used)}/{len(table)}", INK, font, anchor="rm")
    frame = [
        SUPERSAMPLING * 4,
        SUPERSAMPLING * HEADER,
        size[0] - SUPERSAMPLING * 4,
        size[1] - SUPERSAMPLING * 4,
    ]
    draw.rectangle(frame, outline=LINE, width=SUPERSAMPLING)
    return image.resize((PANEL, PANEL + HEADER), Image.Resampling.LANCZOS)


def _place(point: list[float]) -> tuple[float, float]:
    scale = SUPERSAMPLING * PANEL / EXTENT
    return (point[0] - LEFT) * scale, SUPERSAMPLING * (PANEL + HEADER) - (point[1] - BOTTOM) * scale


def _star(draw: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, colour: str) -> None:
    corners = torch.polar(
        torch.tensor([radius, 0.45 * radius]).repeat(5), torch.arange(10) * (torch.pi / 5) - torch.pi / 2
    )
    draw.polygon(
        [(centre[0] + c.real, centre[1] + c.imag) for c in corners.tolist()],
        colour,
        "white",
        SUPERSAMPLING // 2,
    )
