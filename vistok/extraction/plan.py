"""The plan of an extraction: what is read, how, by which tokenizer, and into which shards. Written first.

Every worker makes the plan from its command and compares it with the one in the folder; so do a resume and
every reader. Its SHA-256 is in each shard.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data import IndexedSource, Source
from ..files import write_once
from .layout import narrowest
from .views import Views

FORMAT = "vistok-tokens"
FORMAT_VERSION = 1
PLAN = "plan.json"
# Paths and names do not decide about tokens; the probe is measured once, by whoever writes the plan.
_NOT_COMPARED = {("dataset", "name"), ("tokenizer", "name"), ("numerics", "share_differing_from_float32")}


class PlanError(ValueError):
    """A folder of tokens has no plan, a damaged one or another one; the message says what to do."""


@dataclass(frozen=True)
class Shard:
    """One file of tokens: rows `[start, stop)` of an input file, all rows where `stop` is None.

    `number` counts the shards; `name` is their files' name without a suffix.
    """

    number: int
    name: str
    file: int
    start: int
    stop: int | None


class Plan:
    """A plan as it is in a folder.

    Args:
        data: The bytes of `plan.json`.

    Raises:
        PlanError: They are damaged, or of a newer format.
    """

    def __init__(self, data: bytes):
        self.data = data
        self.id = hashlib.sha256(data).hexdigest()
        try:
            self.values: dict[str, Any] = json.loads(data)
            known = (self.values["format"], self.values["format_version"])
            if known != (FORMAT, FORMAT_VERSION):
                raise PlanError(
                    f"{PLAN} is of format {known[0]} {known[1]}, this vistok reads {FORMAT_VERSION}"
                )
            self.shards = list(_shards(self.values))
        except PlanError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PlanError(f"{PLAN} is damaged ({type(error).__name__}: {error})") from error

    @classmethod
    def read(cls, folder: str | Path) -> "Plan":
        """The plan of a folder.

        Raises:
            PlanError: There is none, or it is damaged.
        """
        try:
            return cls((Path(folder) / PLAN).read_bytes())
        except OSError as error:
            raise PlanError(
                f"{folder} holds no tokens: there is no {PLAN} ({error.strerror or error})"
            ) from error

    @property
    def views(self) -> Views:
        """The views of the preprocessing."""
        return Views.from_description(self.values["preprocessing"])

    @property
    def has_buckets(self) -> bool:
        """Whether pictures have several shapes."""
        return "buckets" in self.values["preprocessing"]

    @property
    def tokens_per_view(self) -> int:
        """How many tokens a view has, where all have the same shape."""
        return math.prod(self.values["tokenizer"]["grid"]) * self.values["tokenizer"]["num_codebooks"]

    @property
    def token_dtype(self) -> str:
        """The type of tokens in the shards."""
        return self.values["tokens"]["dtype"]

    def where(self, shard: Shard, row: int) -> str:
        """A row of a shard in words, for messages."""
        return f"row {row} of {self.values['dataset']['files'][shard.file]['name']}"


def make_plan(
    source: Source,
    tokenizer: dict[str, Any],
    views: Views,
    numerics: dict[str, Any],
    *,
    shard_size: int,
    token_order: str,
) -> dict[str, Any]:
    """The values of a plan.

    Args:
        source: The rows.
        tokenizer: What `describe_tokenizer` says.
        views: The views of a picture.
        numerics: What decides about the tokens' last bits: dtype, batch size, versions.
        shard_size: Pictures in a shard. A file of unknown length (a tar) is one shard, whatever it holds, so
            that nothing has to be read to make the plan.
        token_order: Of several codebooks.
    """
    if shard_size < 1:
        raise ValueError(f"shard_size must be at least 1 picture, got {shard_size}")
    if isinstance(source, IndexedSource):
        names, rows = ["pictures"], [source.num_rows]
    else:
        names = relative_names(source.files) or [f"part {part}" for part in range(source.num_shards)]
        rows = source.shard_lengths or [None] * source.num_shards
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "dataset": {
            "name": source.name,
            "split": source.split,
            "config_name": source.config_name,
            "revision": source.revision,
            "image_column": source.image_column,
            "fingerprint": source.fingerprint,
            "label_names": source.label_names,
            "has_labels": source.has_labels,
            "files": [{"name": name, "rows": count} for name, count in zip(names, rows, strict=True)],
            "keep_columns": list(source.keep_types),
        },
        "tokenizer": tokenizer,
        "preprocessing": views.describe(),
        "numerics": numerics,
        "tokens": {
            "dtype": str(narrowest(tokenizer["codebook_size"])),
            "order": token_order,
            "row_order": "files, their rows, the views of a row",
        },
        "shard_size": shard_size,
    }


def relative_names(files: tuple[str, ...]) -> list[str]:
    """File names below the folder that all are in: the same on every machine."""
    folders = [file.rpartition("/")[0].split("/") for file in files]
    common = 0
    while folders and all(
        len(folder) > common and folder[common] == folders[0][common] for folder in folders
    ):
        common += 1
    return ["/".join(file.split("/")[common:]) for file in files]


def publish_plan(folder: Path, values: dict[str, Any]) -> Plan:
    """Writes the plan of a new extraction, or compares it with the one that is there.

    Raises:
        PlanError: Another plan is there; the message names what differs, with both values.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()
    if not (folder / PLAN).exists():
        write_once(folder / PLAN, data)
    plan = Plan.read(folder)
    differing = differences(plan.values, json.loads(data))
    if differing:
        raise PlanError(
            f"{folder} holds tokens of another plan: {'; '.join(differing)}; give the same settings, or "
            "another output_dir"
        )
    return plan


def differences(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two plans, a sentence each: the field and both values."""
    found = []
    for field, before, after in _fields(saved, now):
        if before != after and field not in _NOT_COMPARED:
            was, is_ = _shortened(before, after)
            found.append(f"{'.'.join(field)} was {was}, now it is {is_}")
    return found


_MISSING = object()


def _fields(saved: Any, now: Any, field: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(saved, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*saved, *now]):
            yield from _fields(saved.get(key, _MISSING), now.get(key, _MISSING), (*field, key))
    else:
        yield field, saved, now


def _shortened(*values: Any) -> list[str]:
    """Two values as text, of long ones what lies around the first difference."""
    texts = ["not there" if value is _MISSING else json.dumps(value, ensure_ascii=False) for value in values]
    begin = max(0, len(os.path.commonprefix(texts)) - 40) if max(map(len, texts)) > 100 else 0
    return [
        f"{'...' if begin else ''}{text[begin : begin + 100]}{'...' if len(text) > begin + 100 else ''}"
        for text in texts
    ]


def _shards(values: dict[str, Any]) -> Iterator[Shard]:
    size = values["shard_size"]
    ranges = []
    for file, described in enumerate(values["dataset"]["files"]):
        rows = described["rows"]
        if rows is None:
            ranges.append((file, 0, None))
        else:
            ranges += [(file, start, min(start + size, rows)) for start in range(0, rows, size)]
    split = "".join(c if c.isalnum() else "_" for c in values["dataset"]["split"])
    for number, (file, start, stop) in enumerate(ranges):
        yield Shard(number, f"{split}-{number:05d}-of-{len(ranges):05d}", file, start, stop)
