"""What an evaluation leaves: results as JSON, and over several models tables and plots."""

import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .plots import draw_codebook_use, draw_rate_distortion, save
from .tables import measured_rows, published_rows, to_csv, to_latex, to_markdown

RESULTS = "eval_results.json"


def to_json(results: dict[str, Any]) -> str:
    """Results as JSON that every reader takes: what is not finite becomes a string, such as `"inf"`."""
    return json.dumps(_strict(results), indent=2, allow_nan=False) + "\n"


def read_results(path: str | Path) -> dict[str, Any]:
    """Results that an evaluation or a training run has written.

    Args:
        path: Their file, or the folder that holds `eval_results.json`.

    Raises:
        ValueError: There is none, or it is something else.
    """
    file = Path(path) / RESULTS if Path(path).is_dir() else Path(path)
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        results["metrics"] = {name: float(value) for name, value in results["metrics"].items()}
        results["protocol"]["resolution"] + results["protocol"]["pictures"]  # what every table says
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{file} holds no results of vistok evaluate") from error
    results.setdefault("name", file.resolve().parent.name)  # a training run's
    results.setdefault("group", results["name"])
    return results


def named(paths: Sequence[Sequence[str]]) -> list[list[tuple[str, str]]]:
    """Models with short names, and the name of each group of seeds.

    Args:
        paths: Folders or Hub ids; those of one inner list are seeds of one model.

    Returns:
        For each model its name and its group's, in the same order: the last part of its path, or as many as
        are needed to tell models apart. No two groups have the same name.

    Example:
        >>> named([["runs/fsq-seed0", "runs/fsq-seed1"], ["org/vq"]])
        [[('fsq-seed0', 'fsq'), ('fsq-seed1', 'fsq')], [('vq', 'vq')]]
    """
    parts = [[_parts(path) for path in group] for group in paths]
    longest = max(len(part) for group in parts for part in group)
    for length in range(1, longest + 1):
        names = [["/".join(part[-length:]) for part in group] for group in parts]
        flat = [name for group in names for name in group]
        if len(set(flat)) == len(flat):
            groups = _group_names(names)
            return [[(name, group) for name in seeds] for seeds, group in zip(names, groups, strict=True)]
    given = [path for group in paths for path in group]
    raise ValueError(
        f"{next(p for p, name in zip(given, flat, strict=True) if flat.count(name) > 1)} is given twice"
    )


def write_comparison(folder: Path, results: Sequence[dict[str, Any]], plots: bool = True) -> list[str]:
    """Writes the tables and plots over models into a folder.

    Args:
        folder: Where they go.
        results: Those of each model, with `name` and `group`.
        plots: Whether to draw too, for which matplotlib is needed.

    Returns:
        The names of the files.
    """
    ours, others = measured_rows(results), published_rows()
    texts = {"md": to_markdown, "tex": to_latex, "csv": to_csv}
    for suffix, write in texts.items():
        (folder / f"comparison.{suffix}").write_text(write([*ours, *others]), encoding="utf-8")
    written = [f"comparison.{suffix}" for suffix in texts]
    if plots and any("bits_per_pixel" in row.values for row in ours):
        save(draw_rate_distortion([*ours, *others]), folder / "rate_distortion.png")
        written.append("rate_distortion.png")
    if plots and any(result.get("codebooks") for result in results):
        save(draw_codebook_use(results), folder / "codebook_use.png")
        written.append("codebook_use.png")
    return written


def _parts(path: str) -> list[str]:
    folder = os.path.abspath(path) if os.path.isdir(path) else path  # `.` has a name
    return [part for part in folder.split("/") if part]


def _group_names(names: Sequence[Sequence[str]]) -> list[str]:
    groups = [_group_name(seeds) for seeds in names]
    while len(set(groups)) < len(groups):
        groups = [
            seeds[0] if groups.count(group) > 1 else group for group, seeds in zip(groups, names, strict=True)
        ]
    return groups


def _group_name(names: Sequence[str]) -> str:
    common = names[0]
    for name in names[1:]:
        while not name.startswith(common):
            common = common[:-1]
    if len(names) > 1:
        common = re.sub(r"[-_. /]*(seed|run)?[-_. /]*\d*$", "", common)
    return common or names[0]


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_strict(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
