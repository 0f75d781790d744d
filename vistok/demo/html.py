"""The parts of the page that are no pictures: numbers, legends, sentences and tables, as HTML.

Colours are the page's own, so that light and dark both read well. What comes from outside is escaped.
"""

from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from .charts import falling_bars, signed_bars
from .reconstruction import Reconstruction, quality
from .token_map import TokenMap
from .tokenizers import Tokenizer


def note(text: str) -> str:
    """A sentence in small type."""
    return f'<p class="note">{escape(text)}</p>'


def numbers(tokenizer: Tokenizer, result: Reconstruction) -> str:
    """The numbers of a reconstruction as a row of tiles."""
    values = result.numbers
    tiles = [
        (decibels(values["psnr"]), "PSNR", "peak signal-to-noise ratio: higher is nearer to the original"),
        (f"{values['ssim']:.3f}" if "ssim" in values else "–", "SSIM", "structural similarity, 1 is equal"),
    ]
    if result.tokens is not None:
        entries = _entries(tokenizer)
        shape = "×".join(map(str, result.tokens.shape))
        tiles += [
            (f"{values['tokens']:,}", f"tokens: {shape}", "how many whole numbers describe the picture"),
            (f"{values['bits_per_pixel']:.3f}", "bits per pixel", "an uncompressed picture has 24"),
            (
                f"{values['entries_used']:,} / {entries:,}",
                "entries used",
                "of the codebook, in this picture",
            ),
        ]
    tiles.append((f"{values['seconds']:.2f} s", "time", "to tokens and back, without drawing and measuring"))
    items = "".join(
        f'<div class="tile" title="{note}"><dd>{escape(value)}</dd><dt>{escape(name)}</dt></div>'
        for value, name, note in tiles
    )
    return f'<dl class="tiles">{items}</dl>'


def what_was_computed(tokenizer: Tokenizer, result: Reconstruction) -> str:
    """A sentence on what became of the picture before it was tokenized."""
    width, height = result.original.size
    if result.processor.do_center_crop:
        why = f"{tokenizer.name} takes nothing else" if not tokenizer.any_shape else "as all are compared"
        text = f"The centre square at {width} × {height} pixels: {why}."
    else:
        text = f"The whole picture at {width} × {height} pixels."
    if tokenizer.num_codebooks > 1:
        text += f" The tokens are those of the first of {tokenizer.num_codebooks} codebooks."
    if result.tokens is not None:
        text += " Click a token to look into it."
    return note(text)


def difference_legend(amplify: int) -> str:
    """The scale of `draw_difference`."""
    return (
        '<div class="legend"><span>equal</span><span class="heat" role="img" aria-label="from black to pale '
        f'yellow"></span><span>{round(255 / amplify)} of 255 gray levels apart, or more</span></div>'
    )


def histogram(tokenizer: Tokenizer, tokens: np.ndarray) -> str:
    """How often a picture uses the entries of its codebook, the most used first."""
    maps = TokenMap.of(tokenizer, tokens).tokens
    charts = []
    for place, one in enumerate(maps):
        counts = np.sort(np.unique(one, return_counts=True)[1])[::-1]
        share = counts / counts.sum()
        perplexity = float(np.exp(-(share * np.log(share)).sum()))
        which = f"Codebook {place + 1}: " if len(maps) > 1 else ""
        text = (
            f"{which}{len(counts):,} of {tokenizer.model.codebook_size:,} entries are used; as many as "
            f"{perplexity:,.0f} used alike (perplexity). The most used makes {share[0]:.1%} of the tokens."
        )
        charts.append(f'<figure class="chart">{falling_bars(counts)}<figcaption>{text}</figcaption></figure>')
    return "".join(charts)


def token_card(token_map: TokenMap, codebook: int, place: int, vector: Sequence[float]) -> str:
    """What there is to know about one token."""
    row, column = token_map.row_and_column(place)
    count = int(token_map.same(codebook, place).sum())
    where = f"row {row + 1} of {token_map.rows}, column {column + 1} of {token_map.columns}"
    factor = token_map.factor
    if factor is not None:
        top, left = row * factor, column * factor
        pixels = f"{left} to {left + factor - 1} across, {top} to {top + factor - 1} down"
    else:
        where, pixels = f"number {place + 1} of {token_map.places}", "the whole picture: it has no place"
        if scale := token_map.scale(place):
            side, row, column = scale
            pixels = f"those around row {row + 1}, column {column + 1} of the scale {side} × {side}"
    elsewhere = {1: "nowhere else", 2: "once more"}.get(count, f"{count - 1:,} times more")
    facts = [("Token", f"{token_map.token(codebook, place):,}"), ("Place", where), ("Pixels", pixels)]
    if len(token_map.tokens) > 1:
        facts.insert(1, ("Codebook", f"{codebook + 1} of {len(token_map.tokens)}"))
    facts.append(("Occurs", f"{elsewhere} in this picture"))
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return (
        f'<dl class="facts">{rows}</dl><figure class="chart">{signed_bars(vector)}<figcaption>'
        f"Its entry: {_listed(vector)}</figcaption></figure>"
    )


def replacement(
    token_map: TokenMap,
    codebook: int,
    place: int,
    tokens: np.ndarray,
    original: Image.Image,
    before: Image.Image,
    after: Image.Image,
) -> str:
    """What became of the picture when a token was replaced; `tokens` are the new ones, `(K, *grid)`."""
    changed = int((tokens != token_map.tokens).sum())
    a, b = (np.asarray(picture, np.int16) for picture in (before, after))
    touched = (np.abs(a - b) > 0).any(-1)
    rows, columns = (np.flatnonzero(touched.any(axis)) for axis in (1, 0))
    reach = (
        f"in {touched.mean():.1%} of the pixels, all within {columns[-1] - columns[0] + 1} × "
        f"{rows[-1] - rows[0] + 1} pixels"
        if touched.any()
        else "in no pixel"
    )
    old, new = token_map.token(codebook, place), int(tokens[codebook].flat[place])
    psnr = [decibels(quality(original, picture)["psnr"]) for picture in (before, after)]
    places = "1 place" if changed == 1 else f"{changed:,} places"
    return note(
        f"{old:,} → {new:,} at {places}: the picture changes {reach}. "
        f"PSNR to the original: {psnr[0]} → {psnr[1]}."
    )


def kept(count: int, of: int, psnr: float, psnr_of_all: float) -> str:
    """What the first codebooks alone are worth."""
    return note(
        f"{count} of {of} codebooks, {count / of:.0%} of the bits: {decibels(psnr)} instead of "
        f"{decibels(psnr_of_all)}."
    )


def assignment(name: str, usual: np.ndarray, other: np.ndarray, psnr: float, psnr_of_usual: float) -> str:
    """How the tokens of two assignments differ."""
    differ = int((usual != other).sum())
    used = [f"{len(np.unique(tokens)):,}" for tokens in (usual, other)]
    return note(
        f"By {name}, {differ:,} of {usual.size:,} tokens ({differ / usual.size:.1%}) are others. "
        f"Entries used: {used[0]} → {used[1]}. PSNR: {decibels(psnr_of_usual)} → {decibels(psnr)}."
    )


def compared(tokenizers: Sequence[Tokenizer], results: Sequence[Reconstruction]) -> str:
    """The numbers of several tokenizers as a table, the best of each column in bold."""
    columns = {
        "PSNR": ("psnr", decibels, max),
        "SSIM": ("ssim", "{:.3f}".format, max),
        "Tokens": ("tokens", "{:,}".format, None),
        "Entries": (None, "{:,}".format, None),
        "Entries used": ("entries_used", "{:,}".format, None),
        "Bits per pixel": ("bits_per_pixel", "{:.3f}".format, min),
        "Seconds": ("seconds", "{:.2f}".format, min),
    }
    entries = [_entries(tokenizer) for tokenizer in tokenizers]
    cells: list[list[str]] = [[f"<th scope='row'>{escape(result.tokenizer)}</th>"] for result in results]
    for key, shown, best in columns.values():
        values = [result.numbers.get(key) for result in results] if key else entries
        known = [value for value in values if value is not None]
        for row, value in zip(cells, values, strict=True):
            wins = best is not None and len(results) > 1 and value is not None and value == best(known)
            text = "–" if value is None else shown(value)
            row.append(f"<td{' class=best' if wins else ''}>{text}</td>")
    head = "".join(f"<th scope='col'>{name}</th>" for name in ("Tokenizer", *columns))
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in cells)
    table = f'<table class="compared"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scrolls">{table}</div>'


def decibels(psnr: float) -> str:
    """A PSNR for people."""
    return "equal" if psnr == float("inf") else f"{psnr:.2f} dB"


def _entries(tokenizer: Tokenizer) -> int | None:
    """Entries of all codebooks; None without tokens."""
    return (tokenizer.model.codebook_size or 0) * tokenizer.num_codebooks or None


def _listed(vector: Sequence[float]) -> str:
    shown = ", ".join(f"{value:.3g}" for value in vector[:12])
    return f"[{shown}{', …' if len(vector) > 12 else ''}], {len(vector)} channels"
