"""Shards read back, never without knowing that they are those of the plan."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .plan import Plan, Shard
from .shards import METADATA_KEY, as_json, metadata_of, record_path, shard_path

if TYPE_CHECKING:
    import pyarrow as pa

_RECORD = {
    "plan_id": str, "shard": int, "file": str, "start": int, "stop": int, "rows": int, "unreadable": dict,
    "device": str, "bytes": int, "sha256": str, "payload_sha256": str,
}  # fmt: skip


class ShardError(ValueError):
    """A shard is missing, damaged or of another plan; the message names it and says what to do."""


def read_record(folder: Path, plan: Plan, shard: Shard) -> dict[str, Any]:
    """The record of a shard.

    Raises:
        ShardError: It is not there, damaged, or of another plan or shard.
    """
    path = record_path(shard_path(folder, shard))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ShardError(f"{path} is missing: run the extraction again") from error
    try:
        record = json.loads(data)
        if as_json(record) != data:
            raise ValueError("it is not as it was written")
        types = {name: type(value) for name, value in record.items()}
        if types != _RECORD:
            raise ValueError(f"its fields are {', '.join(types)}")
    except (ValueError, AttributeError) as error:
        raise ShardError(f"{path} is damaged ({error}): delete it and run the extraction again") from error
    if (record["plan_id"], record["shard"]) != (plan.id, shard.number):
        raise ShardError(f"{path} belongs to another plan or shard: delete it and run the extraction again")
    return record


def is_done(folder: Path, plan: Plan, shard: Shard) -> bool:
    """Whether a shard is there at its full length; its bytes are read when all are there."""
    try:
        return shard_path(folder, shard).stat().st_size == read_record(folder, plan, shard)["bytes"]
    except (OSError, ShardError):
        return False


def read_table(folder: Path, plan: Plan, shard: Shard, *, checksums: bool = True) -> "pa.Table":
    """All rows of a shard.

    Args:
        folder: The folder of the plan.
        plan: The plan.
        shard: Which shard.
        checksums: Whether to compare the file with the hash of its record, and each page with its own.

    Raises:
        ShardError: The shard is missing or damaged, or belongs to another plan.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = shard_path(folder, shard)
    advice = "delete it and run the extraction again, or fetch it again"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ShardError(f"{path} is missing: run the extraction again, or fetch it again") from error
    if checksums and hashlib.sha256(data).hexdigest() != read_record(folder, plan, shard)["sha256"]:
        raise ShardError(f"{path} is damaged or exchanged: its hash is not that of its record; {advice}")
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=checksums)
        table = file.read(
            use_threads=False
        )  # a shard is small: Arrow's threads would only be in the way at exit
        written = json.loads((table.schema.metadata or {})[METADATA_KEY])
    except (OSError, ValueError, KeyError) as error:  # pyarrow.ArrowInvalid is a ValueError
        raise ShardError(f"{path} is damaged ({error}); {advice}") from error
    expected = metadata_of(plan, shard)
    if written != expected:
        field = next(name for name in expected if written.get(name) != expected[name])
        raise ShardError(
            f"{path} is another shard: its {field} is {written.get(field)!r}, expected {expected[field]!r}; "
            f"{advice}"
        )
    return table


def token_array(table: "pa.Table") -> np.ndarray:
    """The tokens `(rows, L)` of a table whose pictures have one shape; zeros where there are none."""
    column = table["tokens"].combine_chunks()
    length = column.type.list_size
    tokens = np.zeros((len(column), length), column.type.value_type.to_pandas_dtype())
    tokens[~column.is_null().to_numpy(zero_copy_only=False)] = column.flatten().to_numpy().reshape(-1, length)
    return tokens


def is_text(kind: "pa.DataType") -> bool:
    """Whether a column holds text."""
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def remove_shard(folder: Path, shard: Shard) -> None:
    """Takes a shard away, its record first: killed in between, it does not exist."""
    path = shard_path(folder, shard)
    record_path(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
