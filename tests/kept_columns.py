"""Tokens of pictures whose dataset has further columns, and shards that somebody changed knowingly."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from token_folders import run, write_pictures

from vistok import VQModelHF
from vistok.data import open_dataset
from vistok.extraction.manifest import MANIFEST, describe_shards
from vistok.extraction.plan import Plan
from vistok.extraction.shards import as_json, record_path, shard_path


def extract_with(
    model: VQModelHF, files: list[bytes], folder: Path, columns: dict[str, pa.Array], **options
) -> Path:
    """The tokens of pictures in shards of ten, with further columns, all kept but image and label."""
    path = folder / "pictures" / "train.parquet"
    write_pictures(path, files)
    table = pq.read_table(path)
    for name, values in columns.items():
        table = table.drop_columns([name] if name in table.column_names else []).append_column(name, values)
    pq.write_table(table, path)
    kept = [name for name in columns if name not in ("image", "label")]
    source = open_dataset(str(path.parent), split="train", keep_columns=kept, memory_budget=0)
    run(model, source, folder / "tokens", **{"shard_size": 10, **options})
    return folder / "tokens"


def rewrite(folder: Path, number: int, table: pa.Table) -> None:
    """Puts other rows into a shard, and the new file's hash and size into its record and the manifest."""
    plan = Plan.read(folder)
    path = shard_path(folder, plan.shards[number])
    pq.write_table(table, path, write_page_checksum=True)
    data = path.read_bytes()
    record = json.loads(record_path(path).read_bytes())
    record |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    record_path(path).write_bytes(as_json(record))
    (folder / MANIFEST).write_bytes(as_json(describe_shards(folder, plan)))
