"""A hash of what a shard says, independent of how Parquet writes it: it outlives an upgrade and a rewrite."""

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


class Payload:
    """A hash over the names and values of all columns of a shard, in any number of pieces.

    Args:
        names: The columns' names, in their order.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._columns = {name: _Values() for name in names}

    def update(self, table: "pa.Table") -> None:
        """Takes the next rows."""
        for name, values in self._columns.items():
            for chunk in table[name].chunks:
                values.update(chunk)

    def hexdigest(self) -> str:
        """The hash of all rows so far."""
        together = hashlib.sha256()
        for name, values in self._columns.items():
            together.update(hashlib.sha256(name.encode()).digest() + values.digest())
        return together.hexdigest()


class _Values:
    """A hash over arrays of one type: their number, the places of nulls, then what is not null."""

    def __init__(self) -> None:
        self._count = 0
        self._nulls, self._plain = hashlib.sha256(), hashlib.sha256()
        self._items: _Values | None = None  # of lists: all their items, one list after the other

    def update(self, array: "pa.Array") -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        if not len(array):
            return
        if isinstance(array.type, pa.BaseExtensionType):  # read back as its storage where nobody knows it
            array = array.storage
        if array.null_count:
            places = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False)) + self._count
            self._nulls.update(_little_endian(places))
        self._count += len(array)
        array = array.drop_null()
        kind = array.type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
            self._plain.update(_little_endian(lengths.astype(np.int64)))
            self._items = self._items or _Values()
            self._items.update(array.flatten())
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
            self._plain.update(_little_endian(array.to_numpy(zero_copy_only=False)))
        else:
            for value in map(_as_bytes, array.to_pylist()):
                self._plain.update(len(value).to_bytes(8, "little") + value)

    def digest(self) -> bytes:
        parts = self._count.to_bytes(8, "little") + self._nulls.digest() + self._plain.digest()
        return hashlib.sha256(parts + (self._items.digest() if self._items else b"")).digest()


def _as_bytes(value: object) -> bytes:
    """A value that is no number and no list: text and bytes as they are, times and structures as JSON."""
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value, default=str)).encode()


def _little_endian(array: np.ndarray) -> bytes:
    return array.astype(array.dtype.newbyteorder("<")).tobytes()
