"""One file of tokens: Parquet with page checksums, and beside it a record that says it is complete.

A row is a view of a picture. Rows of pictures that could not be read are there too, with a status and
without tokens, so that nothing ever shifts. File and record appear by renames, the record last; a shard whose
record is not there does not exist.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import flush, temporary_beside, write_whole
from .payload import Payload
from .plan import FORMAT_VERSION, Plan, Shard

if TYPE_CHECKING:
    import pyarrow as pa

DATA = "data"  # the folder of the shards
# What `status` means; the reasons are those of `UnreadableImageError`. New ones go to the end.
STATUSES = (
    "ok", "unreadable", "empty", "too_many_bytes", "unidentified", "truncated", "damaged", "too_many_pixels",
    "too_small", "aspect", "mode_F", "mode_I", "unsupported",
)  # fmt: skip
METADATA_KEY = b"vistok"
_OWN_COLUMNS = (
    "file", "row", "key", "sha256", "label", "view", "status", "height", "width", "tokens"
)  # fmt: skip


@dataclass
class TokenRow:
    """A picture on its way into a shard.

    `row`: its number in its input file. `key`: the dataset's name for it. `sha256`: of its encoded bytes,
    None where there are none. `status`: a place in `STATUSES`. `tokens`: unsigned `(V, L)`, None where the
    status is not 0. `grid`: height and width of the token grid, where pictures have several shapes.
    """

    row: int
    key: str | None
    sha256: bytes | None
    label: int | None
    columns: dict[str, Any] | None
    status: int = 0
    tokens: np.ndarray | None = None
    grid: tuple[int, int] | None = None


class ShardWriter:
    """Writes one shard block by block; nothing of it is there before `commit`.

    Args:
        folder: The folder of the plan.
        plan: The plan.
        shard: Which shard.
        keep_types: Arrow types of the dataset's columns that are kept.
    """

    def __init__(self, folder: Path, plan: Plan, shard: Shard, keep_types: "dict[str, pa.DataType]"):
        import pyarrow.parquet as pq

        self._plan, self._shard = plan, shard
        self._path = shard_path(folder, shard)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in self._path.parent.glob(f".tmp-{shard.name}.*"):  # of workers that died
            leftover.unlink(missing_ok=True)
        self._temporary = temporary_beside(self._path)
        self._schema = _schema(plan, shard, keep_types)
        self._writer = pq.ParquetWriter(
            self._temporary,
            self._schema,
            compression="zstd",
            write_page_checksum=True,
            # Bytes of the same weight lie together, so that the empty upper ones cost nothing.
            use_dictionary=[name for name in self._schema.names if name not in ("tokens", "sha256")],
            column_encoding={"tokens.list.element": "BYTE_STREAM_SPLIT"},
            store_schema=True,
        )
        self._payload = Payload(self._schema.names)
        self._pictures = 0
        self._unreadable: dict[str, int] = {}

    def write(self, rows: list[TokenRow]) -> None:
        """Appends pictures as one row group."""
        table = _table(rows, self._plan, self._shard, self._schema)
        self._payload.update(table)
        self._pictures += len(rows)
        for row in rows:
            if row.status:
                reason = STATUSES[row.status]
                self._unreadable[reason] = self._unreadable.get(reason, 0) + 1
        self._writer.write_table(table, row_group_size=max(1, len(table)))

    def commit(self, device: str) -> None:
        """Lets the shard appear, then its record."""
        self._writer.close()
        flush(self._temporary)
        data = self._temporary.read_bytes()
        self._temporary.rename(self._path)
        flush(self._path.parent)
        record = {
            "plan_id": self._plan.id,
            "shard": self._shard.number,
            "file": self._plan.values["dataset"]["files"][self._shard.file]["name"],
            "start": self._shard.start,
            "stop": self._shard.start + self._pictures,
            "rows": self._pictures * len(self._plan.views.names),
            "unreadable": dict(sorted(self._unreadable.items())),
            "device": device,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "payload_sha256": self._payload.hexdigest(),
        }
        write_whole(record_path(self._path), as_json(record))

    def abort(self) -> None:
        """Gives up: what was written is deleted."""
        with contextlib.suppress(OSError):  # such as a full disk, which is why it is given up
            self._writer.close()
        self._temporary.unlink(missing_ok=True)


def check_columns(names: Iterable[str]) -> None:
    """Refuses columns to keep that would take the place of vistok's own.

    Raises:
        ValueError: One would.
    """
    taken = [name for name in names if name in _OWN_COLUMNS]
    if taken:
        raise ValueError(f"keep_columns: {taken[0]!r} is a column of vistok's own; leave it out")


def as_json(values: dict[str, Any]) -> bytes:
    """Plain values in the one form in which records are written."""
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()


def shard_path(folder: Path, shard: Shard) -> Path:
    """Where a shard is."""
    return folder / DATA / f"{shard.name}.parquet"


def record_path(shard: Path) -> Path:
    """Where the record of a shard is."""
    return shard.with_suffix(".json")


def metadata_of(plan: Plan, shard: Shard) -> dict[str, Any]:
    """What a shard's file says about itself."""
    return {
        "format_version": FORMAT_VERSION,
        "plan_id": plan.id,
        "shard": shard.number,
        "file": plan.values["dataset"]["files"][shard.file]["name"],
        "start": shard.start,
        "weights_sha256": plan.values["tokenizer"]["weights_sha256"],
        "codebook_size": plan.values["tokenizer"]["codebook_size"],
        "statuses": list(STATUSES),
    }


def _schema(plan: Plan, shard: Shard, keep_types: "dict[str, pa.DataType]") -> "pa.Schema":
    import pyarrow as pa

    token = pa.from_numpy_dtype(np.dtype(plan.token_dtype))
    fields = {
        "file": pa.int32(),
        "row": pa.int64(),
        "key": pa.string(),
        "sha256": pa.binary(32),
        "label": pa.int64(),
        "view": pa.uint8(),
        "status": pa.uint8(),
    }
    if plan.has_buckets:
        fields |= {"height": pa.uint16(), "width": pa.uint16(), "tokens": pa.list_(token)}
    else:
        fields["tokens"] = pa.list_(token, plan.tokens_per_view)
    metadata = {METADATA_KEY: json.dumps(metadata_of(plan, shard))}
    return pa.schema([*fields.items(), *keep_types.items()], metadata=metadata)


def _table(rows: list[TokenRow], plan: Plan, shard: Shard, schema: "pa.Schema") -> "pa.Table":
    import pyarrow as pa

    views = range(len(plan.views.names))
    each = [(row, view) for row in rows for view in views]
    token = np.dtype(plan.token_dtype)
    columns = {
        "file": [shard.file] * len(each),
        "row": [row.row for row, _ in each],
        "key": [row.key for row, _ in each],
        "sha256": [row.sha256 for row, _ in each],
        "label": [row.label for row, _ in each],
        "view": [view for _, view in each],
        "status": [row.status for row, _ in each],
    }
    if plan.has_buckets:
        columns["height"] = [row.grid and row.grid[0] for row, _ in each]
        columns["width"] = [row.grid and row.grid[1] for row, _ in each]
        columns["tokens"] = [None if row.tokens is None else row.tokens[view] for row, view in each]
    else:
        empty = np.zeros((len(views), plan.tokens_per_view), token)
        values = np.concatenate([empty if row.tokens is None else row.tokens for row in rows] or [empty[:0]])
        columns["tokens"] = pa.FixedSizeListArray.from_arrays(
            pa.array(values.reshape(-1)),
            plan.tokens_per_view,
            mask=pa.array([row.tokens is None for row, _ in each], pa.bool_()),
        )
    for name in schema.names:
        if name not in columns:
            columns[name] = [row.columns[name] for row, _ in each]
    return pa.table(columns, schema=schema)
