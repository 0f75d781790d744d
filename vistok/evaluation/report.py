"""What an evaluation leaves: results as JSON, and over several models tables and plots."""

import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .plots import draw_codebook_use, draw_rate_distortion, plotted_columns, to_png
from .tables import measured_rows, notes_of, published_rows, to_csv, to_latex, to_markdown

RESULTS = "eval_results.json"
_TEXTS_READ = ("dataset", "split", "crop", "rounding")  # of every protocol
_COUNTS_READ = ("pictures", "unreadable_pictures", "resolution")


def to_json(results: dict[str, Any]) -> str:
    """Results as JSON that every reader takes: what is not finite becomes a string, such as `"inf"`."""
    return json.dumps(_strict(results), indent=2, allow_nan=False) + "\n"


def read_results(path: str | Path) -> dict[str, Any]:
    """Results that an evaluation or a training run has written.

    Args:
        path: Their file, or the folder that holds `eval_results.json`.

    Raises:
        ValueError: There is none, it is something else, or it lacks what the tables say.
    """
    file = _file_of(path)
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{file} holds no results of vistok evaluate: it is no JSON") from error
    wrong = _wrong_key(results)
    if wrong is not None:
        raise ValueError(f"{file} holds no results of vistok evaluate: {wrong} is missing or something else")
    results["metrics"] = {name: float(value) for name, value in results["metrics"].items()}
    results.setdefault("name", file.resolve().parent.name)  # a training run's
    results.setdefault("group", results["name"])
    return results


def read_all(paths: Sequence[str | Path]) -> list[dict[str, Any]]:
    """The results of several evaluations; those of one name and protocol are named by their folders too.

    Args:
        paths: As for `read_results`.

    Raises:
        ValueError: One cannot be read, or two are the same.
    """
    results = [read_results(path) for path in paths]
    notes = notes_of([result["protocol"] for result in results])
    keys = [(result["name"], note) for result, note in zip(results, notes, strict=True)]
    groups = [(result["group"], note) for result, note in zip(results, notes, strict=True)]
    alike = {group for group, key in zip(groups, keys, strict=True) if keys.count(key) > 1}
    chosen = [i for i, group in enumerate(groups) if group in alike]
    folders = {i: _above(_file_of(paths[i]).resolve(), results[i]["name"]) for i in chosen}
    for length in range(1, max(map(len, folders.values()), default=0) + 1):
        before = {i: "/".join(folders[i][-length:]) for i in chosen}
        if len({(before[i], keys[i]) for i in chosen}) == len(chosen):
            for i in chosen:
                results[i] |= {key: f"{before[i]}/{results[i][key]}" for key in ("name", "group")}
            return results
    if chosen:
        twice = next(i for i in chosen if keys.count(keys[i]) > 1)
        raise ValueError(f"{paths[twice]} is given twice, or another has its name and folder")
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


def comparison(results: Sequence[dict[str, Any]], plots: bool = True) -> dict[str, bytes]:
    """The tables and plots over models, as the contents of files by their names.

    Args:
        results: Those of each model, with `name` and `group`.
        plots: Whether to draw too, for which matplotlib is needed.

    Raises:
        ValueError: Two results of one protocol have the same name.
    """
    ours, others = measured_rows(results), published_rows()
    texts = {"md": to_markdown, "tex": to_latex, "csv": to_csv}
    files = {f"comparison.{suffix}": write([*ours, *others]).encode() for suffix, write in texts.items()}
    if plots and plotted_columns(ours):
        files["rate_distortion.png"] = to_png(draw_rate_distortion([*ours, *others]))
    if plots and any(result.get("codebooks") for result in results):
        files["codebook_use.png"] = to_png(draw_codebook_use(results))
    return files


def _file_of(path: str | Path) -> Path:
    return Path(path) / RESULTS if Path(path).is_dir() else Path(path)


def _above(file: Path, name: str) -> list[str]:
    """The parts of the path to a file of results, without what its model's name says already."""
    parts = [*file.parent.parts[1:], *([] if file.name == RESULTS else [file.stem])]
    own = name.split("/")
    return parts[: -len(own)] if parts[-len(own) :] == own else parts


def _wrong_key(results: Any) -> str | None:
    """The first key that the tables and plots read and that is not there, or holds something else."""
    for key in ("metrics", "protocol"):
        if not isinstance(results, dict) or not isinstance(results.get(key), dict):
            return key
    protocol = results["protocol"]
    texts = {*_TEXTS_READ, *(protocol.keys() & {"dtype"} and {"dtype", "device"})}
    for key, kind in [*((key, str) for key in sorted(texts)), *((key, int) for key in _COUNTS_READ)]:
        if not isinstance(protocol.get(key), kind):
            return f"protocol.{key}"
    for part in ("metrics", "speed"):
        for key, value in results.get(part, {}).items():
            try:
                float(value if part == "metrics" or key.endswith("second") else 0)
            except (TypeError, ValueError):
                return f"{part}.{key}"
    for i, codebook in enumerate(results.get("codebooks", [])):
        for key in ("entries", "usage", "perplexity", "histogram"):
            if key not in codebook:
                return f"codebooks[{i}].{key}"
    return None


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
