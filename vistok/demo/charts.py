"""Small bar charts as SVG; the page gives them their colours."""

from collections.abc import Sequence

import numpy as np

MOST_BARS = 96  # of a chart; more are narrower than a pixel on a phone
HEIGHT = 40  # units of the drawing; the page scales it


def falling_bars(counts: np.ndarray) -> str:
    """Falling counts as bars; of many, each bar is the mean of neighbours."""
    groups = [group.mean() for group in np.array_split(counts, min(MOST_BARS, len(counts)))]
    width, highest = 100 / len(groups), max(groups)
    heights = [HEIGHT * group / highest for group in groups]
    bars = "".join(
        _bar(place * width, HEIGHT - height, width, height) for place, height in enumerate(heights)
    )
    label = f"The most used entry occurs {counts[0]} times, the least used one {counts[-1]} times"
    ends = f"<span>most used: {counts[0]:,}×</span><span>least used: {counts[-1]:,}×</span>"
    return f'{_svg(bars, label)}<div class="axis">{ends}</div>'


def signed_bars(vector: Sequence[float]) -> str:
    """Channels of a vector as bars above and below zero."""
    values = list(vector)[:MOST_BARS]
    scale = 0.48 * HEIGHT / (max(map(abs, values)) or 1)
    width = 100 / len(values)
    middle = HEIGHT / 2
    bars = "".join(
        _bar(place * width, middle - max(0, value) * scale, width, max(0.6, abs(value) * scale))
        for place, value in enumerate(values)
    )
    axis = '<line x1="0" x2="100" y1="20" y2="20"/>'
    return _svg(bars + axis, "The channels of the entry")


def _bar(x: float, y: float, width: float, height: float) -> str:
    return f'<rect x="{x:.3f}" y="{y:.2f}" width="{0.85 * width:.3f}" height="{height:.2f}"/>'


def _svg(content: str, label: str) -> str:
    shape = f'viewBox="0 0 100 {HEIGHT}" preserveAspectRatio="none"'
    return f'<svg {shape} role="img" aria-label="{label}">{content}</svg>'
