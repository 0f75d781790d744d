"""Tables over tokenizers, ours and those that others have published, with the protocols of the numbers."""

import csv
import io
import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, NamedTuple

import yaml


class Column(NamedTuple):
    """A column of a table: its key in results, title, how a number is written, which way is better."""

    key: str
    title: str
    format: str
    better: str = ""


COLUMNS = (
    Column("resolution", "pixels", "{:.0f}"),
    Column("tokens_per_picture", "tokens", "{:,.0f}"),
    Column("bits_per_pixel", "bits per pixel", "{:.4f}"),
    Column("rfid", "rFID", "{:.2f}", "lower"),
    Column("kid", "KID", "{:.5f}", "lower"),
    Column("inception_score", "Inception score", "{:.1f}", "higher"),
    Column("lpips_vgg", "LPIPS (VGG)", "{:.4f}", "lower"),
    Column("lpips_alex", "LPIPS (AlexNet)", "{:.4f}", "lower"),
    Column("lpips", "LPIPS (as published)", "{:.4f}", "lower"),
    Column("ms_ssim", "MS-SSIM", "{:.4f}", "higher"),
    Column("ssim", "SSIM", "{:.4f}", "higher"),
    Column("psnr", "PSNR (dB)", "{:.2f}", "higher"),
    Column("psnr_y", "PSNR of luminance (dB)", "{:.2f}", "higher"),
    Column("l1", "L1", "{:.4f}", "lower"),
    Column("mse", "MSE", "{:.5f}", "lower"),
    Column("codebook_usage", "usage", "{:.1%}", "higher"),
    Column("usage_queue_65536", "usage, last 65,536 tokens", "{:.1%}"),
    Column("codebook_perplexity", "perplexity", "{:,.1f}", "higher"),
    Column("dead_entries", "dead entries", "{:,.0f}"),
    Column("parameters", "parameters", "{:,.0f}"),
    Column("encode_images_per_second", "encode (images/s)", "{:,.1f}"),
    Column("decode_images_per_second", "decode (images/s)", "{:,.1f}"),
)


_OF_ALL_SEEDS = ("tokens_per_picture", "bits_per_pixel", "parameters")  # equal, or the model is another
_HASHED = {  # what tells two protocols of one description apart
    "dataset_revision": "revision",
    "dataset_fingerprint": "data",
    "inception": "Inception",
    "lpips_vgg": "LPIPS (VGG)",
    "lpips_alex": "LPIPS (AlexNet)",
}


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        name: What the line is called.
        values: Numbers by the key of their column; where there are several seeds, their means.
        spread: The standard deviations over the seeds, of the numbers that have one.
        protocol: How the numbers were made.
        published: Whether they are somebody else's.
    """

    name: str
    values: dict[str, float]
    protocol: str
    spread: dict[str, float] = field(default_factory=dict)
    published: bool = False


def measured_rows(results: Sequence[dict[str, Any]]) -> list[Row]:
    """A row for each model and protocol; the seeds of one model are a row together.

    What differs in tokens, bits per pixel or parameters is no other seed, whatever its group says: it has a
    row of its own. Protocols that differ in the data or the weights of networks have different notes.

    Args:
        results: What `vistok evaluate` has written; `group` says which are seeds of one model.

    Raises:
        ValueError: Two results of one protocol have the same name.
    """
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for result, note in zip(results, notes_of([result["protocol"] for result in results]), strict=True):
        shape = tuple(result["metrics"].get(key) for key in _OF_ALL_SEEDS)
        groups.setdefault((result["group"], note, shape), []).append(result)
    taken = Counter((group, note) for group, note, _ in groups)
    rows = []
    for (group, protocol, _), seeds in groups.items():
        names = [result["name"] for result in seeds]
        name = group if taken[group, protocol] == 1 else names[0]
        if len(set(names)) < len(names):
            raise ValueError(
                f"two results are those of {names[0]} by the same protocol: leave one of them out"
            )
        numbers = [_numbers(result) for result in seeds]
        shared = [key for key in numbers[0] if all(key in one for one in numbers)]
        rows.append(
            Row(
                name if len(seeds) == 1 else f"{name} ({len(seeds)} seeds)",
                {key: statistics.fmean(one[key] for one in numbers) for key in shared},
                protocol,
                {key: _deviation([one[key] for one in numbers]) for key in shared if len(seeds) > 1},
            )
        )
    return rows


def published_rows() -> list[Row]:
    """What others have published, with what is known of their protocols.

    Example:
        >>> row = published_rows()[0]
        >>> row.name, row.values["rfid"]
        ('VQGAN f16, 1,024', 7.94)
        >>> row.protocol
        'ImageNet validation, 256 px; 10.54 on the training split (taming-transformers README)'
    """
    text = resources.files(__package__).joinpath("published.yaml").read_text(encoding="utf-8")
    rows = []
    for entry in yaml.safe_load(text):
        size = entry.get("resolution", 256)
        bits = entry["tokens"] * math.log2(entry["codebook_size"]) / size**2
        known = {column.key: entry[column.key] for column in COLUMNS if column.key in entry}
        values = known | {"resolution": size, "tokens_per_picture": entry["tokens"], "bits_per_pixel": bits}
        said = f"; {entry['protocol']}" if "protocol" in entry else ""
        protocol = f"ImageNet validation, {size} px{said} ({entry['source']})"
        rows.append(Row(entry["name"], values, protocol, published=True))
    return rows


def notes_of(protocols: Sequence[dict[str, Any]]) -> list[str]:
    """What `describe` says of each; where that is the same for different ones, hashes tell them apart."""
    texts = [describe(protocol) for protocol in protocols]
    known: dict[tuple[str, str], set[str]] = {}
    for text, protocol in zip(texts, protocols, strict=True):
        for key in _HASHED:
            known.setdefault((text, key), set()).update([protocol[key]] if protocol.get(key) else [])
    notes = []
    for text, protocol in zip(texts, protocols, strict=True):
        differing = [key for key in _HASHED if protocol.get(key) and len(known[text, key]) > 1]
        notes.append("; ".join([text, *(f"{_HASHED[key]} {_short(protocol[key])}" for key in differing)]))
    return notes


def _short(text: str) -> str:
    """The first eight digits of a hash, or of each hash within a text."""
    hashes = re.findall(r"\b[0-9a-f]{64}\b", text) or [text]
    return " ".join(one[:8] for one in hashes)


def describe(protocol: dict[str, Any]) -> str:
    """A protocol in a line, for people; `eval_results.json` holds all of it."""
    pictures = f"{protocol['pictures']:,} pictures"
    if protocol["unreadable_pictures"]:
        pictures += f" ({protocol['unreadable_pictures']:,} more cannot be read)"
    parts = [
        f"{protocol['dataset']} {protocol['split']}, {pictures}, {protocol['resolution']} px",
        protocol["crop"].replace("_", " "),
        "rounded to uint8, RGB" if protocol["rounding"].endswith("uint8") else "files, RGB",
    ]
    if "dtype" in protocol:
        parts.append(f"{protocol['dtype']} on {protocol['device']}")
    return "; ".join(parts)


def to_markdown(rows: Sequence[Row]) -> str:
    """The measured rows and the published ones as two tables in Markdown, with numbered protocols beneath."""
    notes = _notes(rows)
    arrows = {"higher": " ↑", "lower": " ↓", "": ""}
    lines = []
    for heading, part in _parts(rows):
        columns = _columns(part)
        titles = ["model", *(column.title + arrows[column.better] for column in columns), "protocol"]
        lines += [
            f"## {heading}",
            "",
            f"| {' | '.join(titles)} |",
            "|---" + "|---:" * len(columns) + "|:---:|",
        ]
        for row in part:
            cells = [row.name, *(_cell(row, column) for column in columns), f"[{notes[row.protocol]}]"]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    lines += ["## Protocols", ""]
    lines += [f"{number}. {protocol}" for protocol, number in notes.items()]
    if any(row.spread for row in rows):
        lines += ["", "Of several seeds: mean ± standard deviation."]
    return "\n".join(lines) + "\n"


def to_latex(rows: Sequence[Row]) -> str:
    """The same in LaTeX, for the packages booktabs and threeparttable."""
    notes = _notes(rows)
    arrows = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "": ""}
    lines = ["% needs booktabs and threeparttable"]
    for heading, part in _parts(rows):
        columns = _columns(part)
        titles = ["model", *(_latex(column.title) + arrows[column.better] for column in columns)]
        lines += [
            f"% {heading}",
            r"\begin{threeparttable}",
            rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
            r"\toprule",
            " & ".join(titles) + r" \\",
            r"\midrule",
        ]
        for row in part:
            cells = [_latex(_cell(row, column)).replace("±", r"$\pm$") for column in columns]
            lines.append(" & ".join([rf"{_latex(row.name)}\tnote{{{notes[row.protocol]}}}", *cells]) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}", r"\begin{tablenotes}"]
        used = {row.protocol for row in part}
        lines += [rf"\item[{i}] {_latex(protocol)}" for protocol, i in notes.items() if protocol in used]
        lines += [r"\end{tablenotes}", r"\end{threeparttable}"]
    return "\n".join(lines) + "\n"


def to_csv(rows: Sequence[Row]) -> str:
    """The table as comma-separated values: all digits, spreads in columns of their own, protocols in full."""
    keys = [column.key for column in _columns(rows)]
    spreads = [key for key in keys if any(row.spread.get(key) for row in rows)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "published", *keys, *(f"{key}_spread" for key in spreads), "protocol"])
    for row in rows:
        values = [row.values.get(key, "") for key in keys] + [row.spread.get(key, "") for key in spreads]
        writer.writerow([row.name, row.published, *values, row.protocol])
    return text.getvalue()


def _numbers(result: dict[str, Any]) -> dict[str, float]:
    known = {**result["metrics"], **result.get("speed", {}), "resolution": result["protocol"]["resolution"]}
    return {column.key: float(known[column.key]) for column in COLUMNS if column.key in known}


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if all(map(math.isfinite, values)) else 0.0


def _parts(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    ours = [row for row in rows if not row.published]
    others = [row for row in rows if row.published]
    named = [("Measured", ours), ("As others have published, by protocols of their own", others)]
    return [(heading, part) for heading, part in named if part]


def _columns(rows: Sequence[Row]) -> list[Column]:
    return [column for column in COLUMNS if any(column.key in row.values for row in rows)]


def _notes(rows: Sequence[Row]) -> dict[str, int]:
    """Each protocol's number, in the order of the rows."""
    return {protocol: i for i, protocol in enumerate(dict.fromkeys(row.protocol for row in rows), start=1)}


def _cell(row: Row, column: Column) -> str:
    if column.key not in row.values:
        return ""
    value = row.values[column.key]
    if row.published and column.better:  # with the digits that were published
        return f"{100 * value:g}%" if column.format.endswith("%}") else f"{value:g}"
    text = column.format.format(value)
    spread = row.spread.get(column.key, 0)
    return f"{text} ± {column.format.format(spread)}" if spread else text


def _latex(text: str) -> str:
    return "".join(f"\\{sign}" if sign in "%&#_$" else sign for sign in text)
