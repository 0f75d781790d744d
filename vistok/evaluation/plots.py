"""Plots over tokenizers: quality against bits per pixel, and how evenly codebooks are used."""

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .tables import COLUMNS, Column, Row
from .usage import HISTOGRAM_BOUNDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PLOTTED = {"rfid", "kid", "inception_score", "lpips_vgg", "lpips_alex", "lpips"}
_PLOTTED |= {"ms_ssim", "ssim", "psnr", "l1", "mse"}
_INK, _GRID, _OTHERS = "#333333", "#e4e4e4", "#9a9a9a"
# Okabe and Ito's colours, which people with any colour vision tell apart; their yellow is too light on white.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_MARKERS = "osD^vPX"
_MOST_CODEBOOKS = 8  # of one model that are drawn
_PANEL = (4.4, 3.4)  # inches: width and height


def plotted_columns(rows: Sequence[Row]) -> list[Column]:
    """The metrics that `draw_rate_distortion` can draw: finite for a measured row with bits per pixel."""
    ours = [row for row in rows if not row.published and "bits_per_pixel" in row.values]
    return [
        column
        for column in COLUMNS
        if column.key in _PLOTTED and any(math.isfinite(row.values.get(column.key, math.nan)) for row in ours)
    ]


def draw_rate_distortion(rows: Sequence[Row]) -> "Figure":
    """A panel for each metric that was measured: bits per pixel to the right, the metric upwards.

    Published figures stand beside ours where they are for pictures of the same size.

    Args:
        rows: Of `measured_rows` and `published_rows`.

    Raises:
        ValueError: Nothing measured has both bits per pixel and a metric.
    """
    ours = [row for row in rows if not row.published and "bits_per_pixel" in row.values]
    sizes = {row.values["resolution"] for row in ours}
    others = [row for row in rows if row.published and row.values["resolution"] in sizes]
    columns = plotted_columns(rows)
    if not columns:
        raise ValueError("nothing to draw: no row has bits per pixel and a metric")
    heading = "Quality of reconstructions against bits per pixel"
    figure, panels = _panels(
        heading, len(columns), legend=0.15 + 0.22 * math.ceil((len(ours) + bool(others)) / 3)
    )
    for panel, column in zip(panels, columns, strict=True):
        known = [row for row in others if column.key in row.values]
        panel.scatter(
            [row.values["bits_per_pixel"] for row in known],
            [row.values[column.key] for row in known],
            s=22, facecolors="none", edgecolors=_OTHERS, label="published, other protocols", zorder=2,
        )  # fmt: skip
        for i, row in enumerate(ours):
            panel.errorbar(
                row.values["bits_per_pixel"],
                row.values.get(column.key, math.nan),
                yerr=row.spread.get(column.key),
                fmt=_MARKERS[(i + i // len(_COLOURS)) % len(_MARKERS)], markersize=8, capsize=4,
                color=_COLOURS[i % len(_COLOURS)], markeredgecolor="white", label=row.name, zorder=3,
            )  # fmt: skip
        values = [row.values.get(column.key, math.nan) for row in [*ours, *known]]
        values = [value for value in values if math.isfinite(value)]
        if column.key == "rfid" and 0 < 10 * min(values) < max(values):  # a bad one would hide all others
            panel.set_yscale("log")
            panel.yaxis.set_major_formatter("{x:g}")
        panel.set_title(f"{column.title}, {column.better} is better", fontsize=11, color=_INK, loc="left")
        panel.set_xlabel("bits per pixel")
        panel.margins(0.15)
    handles = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
    if not others:
        handles.pop("published, other protocols", None)
    figure.legend(handles.values(), handles, loc="lower center", ncols=3, frameon=False, fontsize=10)
    return figure


def draw_codebook_use(results: Sequence[dict[str, Any]]) -> "Figure":
    """A panel for each codebook: how many entries are used how often, compared to equal use of all.

    Args:
        results: What `vistok evaluate` has written.

    Raises:
        ValueError: No model has a codebook.
    """
    drawn = [
        (result["name"], len(result["codebooks"]), number, codebook)
        for result in results
        for number, codebook in enumerate(result.get("codebooks", [])[:_MOST_CODEBOOKS], start=1)
    ]
    if not drawn:
        raise ValueError("nothing to draw: no model has a codebook")
    figure, panels = _panels("How often the entries of a codebook are used", len(drawn))
    labels = _group_labels()
    highest = max(max(codebook["histogram"]) for *_, codebook in drawn)
    for panel, (name, count, number, codebook) in zip(panels, drawn, strict=True):
        shares = [100 * share for share in codebook["histogram"]]
        colours = ["#c9c9c9", *[_COLOURS[0]] * (len(shares) - 1)]
        bars = panel.bar(range(len(shares)), shares, color=colours, width=0.82, zorder=2)
        panel.bar_label(bars, [_percent(share) for share in shares], fontsize=8, color=_INK, padding=2)
        panel.set_xticks(range(len(shares)), labels, rotation=40, ha="right", fontsize=8)
        panel.set_ylim(0, 112 * highest)
        panel.set_ylabel("entries (%)")
        panel.set_xlabel("used how often: 1x is as if all were used alike")
        which = f", codebook {number} of {count}" if count > 1 else ""
        size = codebook["entries"]
        panel.set_title(f"{name}{which}", fontsize=11, color=_INK, loc="left", pad=22)
        panel.text(
            0, 1.03,
            f"{size:,} entries, {codebook['usage']:.1%} used, perplexity {codebook['perplexity']:,.0f}",
            transform=panel.transAxes, fontsize=9, color="#666666",
        )  # fmt: skip
    return figure


def to_png(figure: "Figure") -> bytes:
    """A plot as the content of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()


def _panels(heading: str, count: int, legend: float = 0.0) -> "tuple[Figure, list[Axes]]":
    """A figure of `count` panels, at most three in a row, with so many inches of room beneath them."""
    try:
        from matplotlib.figure import Figure  # not pyplot: no window, nothing global
    except ImportError as error:
        raise ValueError('plots need matplotlib: pip install "vistok[eval]"') from error
    columns = min(3, count)
    rows = math.ceil(count / columns)
    height = _PANEL[1] * rows + legend
    figure = Figure(figsize=(_PANEL[0] * columns, height), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(rect=(0, legend / height, 1, 1 - legend / height), w_pad=0.1, h_pad=0.1)
    figure.suptitle(heading, fontsize=13, color=_INK)
    grid = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for panel in grid[count:]:
        panel.remove()
    for panel in grid[:count]:
        panel.grid(color=_GRID, linewidth=0.8, zorder=0)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["left", "bottom"]].set_color("#999999")
        panel.tick_params(colors=_INK, labelsize=9)
    return figure, grid[:count]


def _group_labels() -> list[str]:
    """What each group of a histogram is: `never`, `≤1/8x`, ... `>8x`."""
    bounds = [f"1/{round(1 / bound)}x" if bound < 1 else f"{bound:g}x" for bound in HISTOGRAM_BOUNDS]
    return ["never", *(f"≤{bound}" for bound in bounds), f">{bounds[-1]}"]


def _percent(share: float) -> str:
    return "" if share == 0 else "<0.1" if share < 0.1 else f"{share:.1f}" if share < 10 else f"{share:.0f}"
