"""A hash of what a shard says, independent of how Parquet writes it: it outlives an upgrade and a rewrite."""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

_HASHED = ("file", "row", "key", "sha256", "label", "view", "status", "tokens")


class Payload:
    """A hash over the values of a shard, column by column, in any number of pieces."""

    def __init__(self) -> None:
        self._columns = {name: (hashlib.sha256(), hashlib.sha256()) for name in _HASHED}  # nulls, values

    def update(self, table: "pa.Table") -> None:
        """Takes the next rows."""
        for name, (nulls, values) in self._columns.items():
            column = table[name].combine_chunks()
            nulls.update(column.is_null().to_numpy(zero_copy_only=False).tobytes())
            for piece in _plain_bytes(column.drop_null()):
                values.update(piece)

    def hexdigest(self) -> str:
        """The hash of all rows so far."""
        together = b"".join(digest.digest() for pair in self._columns.values() for digest in pair)
        return hashlib.sha256(together).hexdigest()


def _plain_bytes(column: "pa.Array") -> Iterator[bytes]:
    """The values of a column without nulls, whose pieces joined are those of the joined column."""
    import pyarrow as pa

    if pa.types.is_string(column.type):
        yield from (value.encode() + b"\0" for value in column.to_pylist())
    elif pa.types.is_fixed_size_binary(column.type):
        yield from column.to_pylist()
    elif pa.types.is_list(column.type):  # of several lengths: each before its values
        for value in column:
            yield len(value).to_bytes(8, "little") + _little_endian(value.values)
    elif pa.types.is_fixed_size_list(column.type):
        yield _little_endian(column.flatten())
    else:
        yield _little_endian(column)


def _little_endian(values: "pa.Array") -> bytes:
    array = values.to_numpy(zero_copy_only=False)
    return array.astype(array.dtype.newbyteorder("<")).tobytes()
