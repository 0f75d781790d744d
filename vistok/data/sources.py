"""Where pictures come from: undecoded rows by number (`IndexedSource`) or shard by shard (`ShardedSource`).

A source knows the rows of one split and nothing of order, ranks, workers or pixels: `stream.py` decides who
reads what when, and decodes. Rows stay encoded (JPEG, PNG ... bytes) until a worker needs their pixels,
because undecoded rows are 10 to 100 times smaller and skipping them costs nothing.
"""

import atexit
import functools
import gc
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from ..image_decoding import UnreadableImageError, decode_image
from ..messages import one_line

if TYPE_CHECKING:
    import datasets
    import pyarrow

SHARD_BITS = 32  # a streamed row's number is `shard << 32 | row in shard`: room for 2^31 shards of 2^32 rows
NO_LABEL = -1  # the label of a row without one, as in ImageNet's test split
ROWS_PER_READ = 256  # undecoded rows taken from `datasets` at once: enough that its overhead does not show


class DatasetError(ValueError):
    """A dataset cannot be opened or read. The message is one line that says what to do."""


class Picture(NamedTuple):
    """One undecoded row.

    `row`: its number, unique in its split. `image`: the encoded bytes, a path or URL to them, or a picture
    that is there already; None where the row has none. `label`: an integer, None in a split without labels.
    `key`: the dataset's own name for the row, such as a file's name, None where it has none. `columns`: the
    row's values of the columns that `open_dataset` was asked to keep, None where it keeps none.
    """

    row: int
    image: bytes | str | Image.Image | None
    label: int | None
    key: str | None = None
    columns: dict[str, Any] | None = None

    def fetch(self) -> "Picture":
        """Return the row with the bytes in place of a path or URL.

        Raises:
            UnreadableImageError: they cannot be fetched.
        """
        return self._replace(image=_fetch(self.image)) if isinstance(self.image, str) else self

    def decode(self) -> Image.Image:
        """Return the picture in mode RGB.

        Raises:
            UnreadableImageError: the bytes are missing, cannot be fetched or are no picture.
        """
        if isinstance(self.image, Image.Image):
            return self.image
        if self.image is None:
            raise UnreadableImageError("the row holds no picture", "empty")
        return decode_image(self.fetch().image)


class Source(ABC):
    """The rows of one split of one dataset.

    Attributes:
        name: what the user called the dataset.
        split: the split's name.
        fingerprint: a hash that changes when other rows would be read (other files, sizes, revision or
            column).
        label_names: the names of the classes, None where there are none.
        has_labels: whether rows carry integer labels.
        num_rows: how many rows there are, None where only reading them all would tell.
        files: the names of the files that hold the rows, one a shard; empty where each picture is a file.
        keep_types: the Arrow types of `Picture.columns`.
        revision: the commit of a dataset on the Hub, None elsewhere.
        config_name: the configuration of a dataset that has several, None where none was named.
        image_column: the column of the pictures, None where there are no columns.
    """

    files: tuple[str, ...] = ()
    keep_types: "dict[str, pyarrow.DataType]"

    def __init__(
        self,
        name: str,
        split: str,
        fingerprint: str,
        has_labels: bool = False,
        label_names: list[str] | None = None,
        keep_types: "dict[str, pyarrow.DataType] | None" = None,
        revision: str | None = None,
        config_name: str | None = None,
        image_column: str | None = None,
    ):
        self.name = name
        self.split = split
        self.fingerprint = fingerprint
        self.has_labels = has_labels
        self.label_names = label_names
        self.keep_types = keep_types or {}
        self.revision = revision
        self.config_name = config_name
        self.image_column = image_column

    @property
    @abstractmethod
    def num_rows(self) -> int | None:
        """How many rows there are, None where only reading them all would tell."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, split={self.split!r}, num_rows={self.num_rows})"


class IndexedSource(Source):
    """Rows that can be read in any order: small sets held in memory, and pictures that are files."""

    @property
    @abstractmethod
    def num_rows(self) -> int:
        """How many rows there are."""

    @abstractmethod
    def read(self, row: int) -> Picture:
        """Return row `row`, in `[0, num_rows)`."""


class TableSource(IndexedSource):
    """Undecoded rows held in memory in three Arrow and numpy arrays, which forked workers share.

    Args:
        encoded: large_binary `(num_rows,)`, null where the picture is a file.
        paths: large_string `(num_rows,)`: path or URL, null where the bytes are there.
        labels: int64 `(num_rows,)`, None without labels.
        keys: large_string `(num_rows,)`, the dataset's names for its rows.
        columns: the columns to keep, `num_rows` rows, None where there are none.
        **described: the arguments of `Source`.
    """

    def __init__(
        self,
        encoded: "pyarrow.LargeBinaryArray",
        paths: "pyarrow.LargeStringArray",
        labels: np.ndarray | None,
        keys: "pyarrow.LargeStringArray",
        columns: "pyarrow.Table | None" = None,
        **described,
    ):
        super().__init__(**described)
        self._encoded, self._paths, self._labels = encoded, paths, labels
        self._keys, self._columns = keys, columns

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return len(self._encoded)

    def read(self, row: int) -> Picture:
        """Return row `row`, in `[0, num_rows)`."""
        label = None if self._labels is None else int(self._labels[row])
        image = self._encoded[row].as_py()
        kept = self._columns
        return Picture(
            row,
            self._paths[row].as_py() if image is None else image,
            label,
            self._keys[row].as_py(),
            None if kept is None else {name: kept[name][row].as_py() for name in kept.column_names},
        )


class ShardedSource(Source):
    """Rows read shard by shard from a `datasets` stream: sets that are too large for memory.

    Args:
        stream: a `datasets.IterableDataset` whose image column is not decoded.
        image_column: its image column.
        label_column: its label column, None without labels.
        shard_names: a file name for each shard, for error messages.
        shard_lengths: how many rows each shard has, None where only reading them would tell.
        key_column: a column that names the rows, None where the image column's paths do.
        **described: the arguments of `Source`.
    """

    def __init__(
        self,
        stream: "datasets.IterableDataset",
        image_column: str,
        label_column: str | None,
        shard_names: list[str],
        shard_lengths: list[int] | None = None,
        key_column: str | None = None,
        **described,
    ):
        super().__init__(image_column=image_column, **described)
        self._stream, self._label_column, self._key_column = stream, label_column, key_column
        self.files = tuple(shard_names) if len(shard_names) == stream.num_shards else ()
        self.shard_lengths = shard_lengths
        self._lengths_read = dict(enumerate(shard_lengths or []))

    @property
    def num_rows(self) -> int | None:
        """How many rows there are, None where only reading them all would tell."""
        return None if self.shard_lengths is None else sum(self.shard_lengths)

    @property
    def num_shards(self) -> int:
        """How many pieces can be read separately."""
        return self._stream.num_shards

    def known_length(self, shard: int) -> int | None:
        """Return how many rows shard `shard` has, None before it was read to its end."""
        return self._lengths_read.get(shard)

    def read_shard(self, shard: int) -> Iterator[Picture]:
        """Yield the rows of shard `shard`, in `[0, num_shards)`, in their order.

        Raises:
            DatasetError: the shard is corrupt or cannot be reached.
        """
        if self.known_length(shard) == 0:  # `datasets` fails at a parquet file without rows
            return
        # `iter` and not `__iter__`: the latter would split the rows among torch's workers a second time.
        batches = self._stream.shard(self.num_shards, shard).iter(batch_size=ROWS_PER_READ)
        count, ended = 0, False
        try:
            for batch in batches:
                labels = batch[self._label_column] if self._label_column else None
                for i, cell in enumerate(batch[self.image_column]):
                    yield Picture(
                        (shard << SHARD_BITS) | count,
                        image_of(cell),
                        label_of(labels, i),
                        batch[self._key_column][i] if self._key_column else _path_of(cell),
                        {name: batch[name][i] for name in self.keep_types} or None,
                    )
                    count += 1
            ended = True
        except (OSError, ValueError) as error:  # pyarrow.ArrowInvalid is a ValueError
            where = self.files[shard] if self.files else f"shard {shard}"
            raise DatasetError(
                f"cannot read {where} of dataset {self.name!r}: {one_line(error)}; "
                "fetch or write that file again"
            ) from error
        finally:
            if not ended:
                _collect_at_exit()
        self._lengths_read[shard] = count

    def in_memory(self) -> TableSource:
        """Read every row and return them as a source that can be read in any order."""
        import pyarrow as pa

        encoded, paths, labels, keys, kept = [], [], [], [], []
        for shard in range(self.num_shards):
            for picture in self.read_shard(shard):
                is_path = isinstance(picture.image, str)
                encoded.append(None if is_path else picture.image)
                paths.append(picture.image if is_path else None)
                labels.append(picture.label)
                keys.append(picture.key)
                kept.append(picture.columns)
        if all(paths):  # one file a picture: named by its place below the folder, wherever that is
            root = len(os.path.dirname(os.path.commonprefix([f"{path}/" for path in paths]))) + 1
            keys = [path[root:] or os.path.basename(path) for path in paths]
        return TableSource(
            pa.array(encoded, pa.large_binary()),
            pa.array(paths, pa.large_string()),
            np.array(labels, dtype=np.int64) if self._label_column else None,
            pa.array(keys, pa.large_string()),
            pa.Table.from_pylist(kept, pa.schema(list(self.keep_types.items())))
            if kept and kept[0]
            else None,
            name=self.name,
            split=self.split,
            fingerprint=self.fingerprint,
            has_labels=self.has_labels,
            label_names=self.label_names,
            keep_types=self.keep_types,
            revision=self.revision,
            config_name=self.config_name,
            image_column=self.image_column,
        )


@functools.cache
def _collect_at_exit() -> None:
    """Arrow reads on what nobody takes, through Python, and aborts when that has ended (apache/arrow#45214).

    Only a reader that was collected stops, once the read in flight has come back.
    """
    atexit.register(time.sleep, 0.1)
    atexit.register(gc.collect)  # the last registered is the first called


def image_of(cell: dict | bytes | None) -> bytes | str | None:
    """Return the bytes of a cell of an undecoded image column; its path where it holds no bytes."""
    if not isinstance(cell, dict):
        return cell
    return cell.get("path") if cell.get("bytes") is None else cell["bytes"]


def _path_of(cell: dict | bytes | None) -> str | None:
    return cell.get("path") if isinstance(cell, dict) else None


def label_of(labels: list | None, i: int) -> int | None:
    """Return row `i`'s label: None in a split without labels, `NO_LABEL` where the cell is empty."""
    if labels is None:
        return None
    return NO_LABEL if labels[i] is None else int(labels[i])


def _fetch(path: str) -> bytes:
    """Return the bytes behind a local path or a URL such as `hf://...` and `zip://a.jpg::b.zip`."""
    try:
        if "://" not in path:
            return Path(path).read_bytes()
        import fsspec

        with fsspec.open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UnreadableImageError(f"{path}: {error.strerror or one_line(error)}") from error
