"""Real pictures for the tests of vistok.data: small JPEG crops of scikit-image's photographs."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from vistok.data.samples import open_samples


@pytest.fixture(scope="session")
def jpegs() -> list[bytes]:
    """97 different pictures of 48 x 40 pixels: a prime number, which no batch or world size divides."""
    source = open_samples("train")
    files = []
    for row in range(0, 97 * 24, 24):
        file = io.BytesIO()
        source.read(row).decode().resize((48, 40)).save(file, "JPEG", quality=85)
        files.append(file.getvalue())
    assert len(set(files)) == 97
    return files


@pytest.fixture(scope="session")
def write_parquet() -> Callable:
    """A function that writes a parquet file of pictures as `datasets` does, or without `Image` feature."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(
        path: Path, files: list[bytes | None], labels: list[int] | None = None, typed: bool = True
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {"image": pa.array([{"bytes": data, "path": None} for data in files],
                                     pa.struct({"bytes": pa.binary(), "path": pa.string()}))}  # fmt: skip
        features = datasets.Features({"image": datasets.Image()})
        if labels is not None:
            columns["label"] = pa.array(labels, pa.int64())
            features["label"] = datasets.ClassLabel(names=["even", "odd"])
        table = pa.table(columns)
        if typed:
            table = table.cast(features.arrow_schema)
        pq.write_table(table, path)

    return write


@pytest.fixture(scope="session")
def parquet_folder(tmp_path_factory, jpegs, write_parquet) -> Path:
    """97 training pictures in 5 unequal shards, 13 for validation; the label is the row's parity."""
    folder = tmp_path_factory.mktemp("pictures")
    edges = [0, 30, 47, 48, 80, 97]
    for shard, (start, end) in enumerate(zip(edges, edges[1:], strict=False)):
        name = f"train-{shard:05d}-of-00005.parquet"
        write_parquet(folder / name, jpegs[start:end], [row % 2 for row in range(start, end)])
    write_parquet(folder / "validation-00000-of-00001.parquet", jpegs[:13], [row % 2 for row in range(13)])
    return folder
