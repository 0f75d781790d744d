"""Tokens for training: all in memory, or streamed shard by shard. Both check what they read."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from ..data import ShardedOrder
from ..data.hub import commit_on_hub
from ..messages import one_line
from ..modeling import VQModelHF
from .identity import describe_tokenizer
from .layout import unflatten_tokens
from .manifest import open_complete
from .plan import Plan, PlanError
from .shard_reading import is_text, read_record, read_table

if TYPE_CHECKING:
    import pyarrow as pa

BUFFER_BYTES = 256 * 2**20  # tokens mixed by a stream: half a million pictures of 256 tokens in 16 bits


def load_tokens(
    path: str | Path,
    *,
    streaming: bool = False,
    model: VQModelHF | None = None,
    checksums: bool = True,
    revision: str | None = None,
    **stream: Any,
) -> "TokenDataset | TokenStream":
    """Opens a complete dataset of tokens.

    Args:
        path: The folder of an extraction, or the Hub id of a dataset that `push_tokens` uploaded.
        streaming: Whether to read shards as they are needed instead of all at once. In memory a token takes
            what its type does: ImageNet with 256 tokens of 16 bits 0.66 GB.
        model: The tokenizer, in float32, that the tokens must be of.
        checksums: Whether to compare each shard with its hash as it is read.
        revision: The revision of a dataset on the Hub.
        stream: The arguments of `TokenStream`.

    Returns:
        Rows that can be read: a dict of `tokens` (int64 `(L,)`), `label` (an integer, where the dataset has
        labels; -1 of a picture without one), `view`, `file`, `row`, `key`, the columns that were kept, and
        `height` and `width` of the token grid where pictures have several shapes. All rows have the same
        keys. A null is "" in a column of text and NaN in one of floats, which a `DataLoader` collates; in
        other columns it is None, which its default `collate_fn` refuses: replace it in one of your own.

    Raises:
        DatasetError: There is neither a folder nor a dataset on the Hub, or the Hub is out of reach.
        PlanError: There is no plan, it is damaged, or the tokens are of another tokenizer.
        IncompleteError: The extraction has not ended.
        ShardError: A shard is missing, damaged or exchanged; a stream raises it when it comes there.
    """
    folder = Path(path)
    if not folder.is_dir() and str(path).count("/") == 1 and not str(path).startswith((".", "/", "~")):
        folder = _fetched(str(path), revision)
    plan = open_complete(folder)
    if model is not None:
        check_tokenizer(plan, model)
    if streaming:
        return TokenStream(folder, plan, checksums=checksums, **stream)
    if stream:
        raise TypeError(f"{', '.join(stream)} is for streaming=True")
    return TokenDataset(folder, plan, checksums=checksums)


def _fetched(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=revision))
    except Exception as error:  # the errors of its HTTP client too
        commit_on_hub(name, revision, None)  # says on one line what is wrong, and that there is no folder
        raise PlanError(f"{name} could not be fetched from the Hub: {one_line(error)}; try again") from error


def check_tokenizer(plan: Plan, model: VQModelHF) -> None:
    """Refuses a tokenizer that did not make a plan's tokens.

    Raises:
        PlanError: Weights or settings differ; the message names both values.
    """
    made = plan.values["tokenizer"]
    now = describe_tokenizer(model, model.name_or_path, plan.views)
    for field in ("weights_sha256", "config_sha256", "codebook_size", "num_codebooks", "grid"):
        if made[field] != now[field]:
            raise PlanError(
                f"The tokens are of {made['name']} with {field} {made[field]}, the model {now['name']} has "
                f"{now[field]}: load the tokenizer of the plan, in float32"
            )


class _Rows:
    """The rows with tokens of any number of shards, as dicts whose keys are those of the plan."""

    def __init__(self, plan: Plan, tables: "list[pa.Table]"):
        import pyarrow as pa
        import pyarrow.compute as pc

        tables = [table.filter(pc.equal(table["status"], 0)) for table in tables]
        lists = [table["tokens"].combine_chunks() for table in tables]
        values = [np.empty(0, plan.token_dtype), *(each.flatten().to_numpy() for each in lists)]
        lengths = [pc.list_value_length(each).to_numpy(zero_copy_only=False) for each in lists]
        self._values = np.concatenate(values)
        self._ends = np.cumsum(np.concatenate([np.empty(0, np.int64), *lengths]), dtype=np.int64)
        names = _columns(plan)
        empty = pa.table(dict.fromkeys(names, pa.array([], pa.int64())))
        table = pa.concat_tables([each.select(names) for each in tables] or [empty]).combine_chunks()
        self._columns = {name: _quick(table[name]) for name in names}
        self._of_null = {name: _of_null(table[name].type) for name in names}

    def __len__(self) -> int:
        return len(self._ends)

    def tokens(self, i: int) -> np.ndarray:
        start = self._ends[i - 1] if i else 0
        return self._values[start : self._ends[i]]

    def column(self, name: str) -> Any:
        return self._columns.get(name)

    def __getitem__(self, i: int) -> dict[str, Any]:
        row = {"tokens": torch.from_numpy(self.tokens(i).astype(np.int64))}
        for name, column in self._columns.items():
            value = int(column[i]) if isinstance(column, np.ndarray) else column[i].as_py()
            row[name] = self._of_null[name] if value is None else value
        return row


def _columns(plan: Plan) -> list[str]:
    """The columns that a row of training has beside its tokens."""
    dataset = plan.values["dataset"]
    label = ["label"] if dataset["has_labels"] else []
    grid = ["height", "width"] if plan.has_buckets else []
    return ["file", "row", "key", *label, "view", *grid, *dataset["keep_columns"]]


def _quick(column: "pa.ChunkedArray") -> "np.ndarray | pa.Array | pa.ChunkedArray":
    """A column in the form whose single values are read fastest; numpy knows no null among integers."""
    import pyarrow as pa

    if pa.types.is_integer(column.type) and not column.null_count:
        return column.to_numpy()
    return column.chunk(0) if column.num_chunks == 1 else column  # several: text of more than 2 GB


def _of_null(kind: "pa.DataType") -> Any:
    import pyarrow as pa

    if is_text(kind):
        return ""
    return math.nan if pa.types.is_floating(kind) else None


class _WithPlan:
    """What both datasets tell about their tokens."""

    plan: Plan

    @property
    def codebook_size(self) -> int:
        """Entries of one codebook: tokens are below it."""
        return self.plan.values["tokenizer"]["codebook_size"]

    @property
    def label_names(self) -> list[str] | None:
        """The names of the classes, None where there are none."""
        return self.plan.values["dataset"]["label_names"]

    def to_grid(self, tokens: Tensor, height: int | None = None, width: int | None = None) -> Tensor:
        """What `VQModelHF.decode` takes, from the sequences of rows.

        Args:
            tokens: int `(B, L)`.
            height: Rows of the token grid, where pictures have several shapes.
            width: Columns of the token grid.

        Returns:
            int `(B, *token_shape)`.
        """
        tokenizer = self.plan.values["tokenizer"]
        grid = tokenizer["grid"] if height is None else (height, width)
        if grid is None:
            raise ValueError("Pictures have several shapes: give height and width of the token grid")
        return unflatten_tokens(tokens, grid, tokenizer["num_codebooks"], self.plan.values["tokens"]["order"])


class TokenDataset(_WithPlan, Dataset):
    """All tokens in memory, in their narrow type; made by `load_tokens`.

    Args:
        folder: The folder of the tokens.
        plan: Its plan.
        checksums: Whether to compare each shard with its hash.
    """

    def __init__(self, folder: Path, plan: Plan, *, checksums: bool = True):
        self.plan = plan
        self._rows = _Rows(
            plan, [read_table(folder, plan, shard, checksums=checksums) for shard in plan.shards]
        )

    @property
    def labels(self) -> np.ndarray | None:
        """The labels of all rows, int64 `(rows,)`, None without labels."""
        return self._rows.column("label")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        if not -len(self) <= i < len(self):
            raise IndexError(f"row {i} of {len(self)}")
        return self._rows[i % len(self)]


class TokenStream(_WithPlan, IterableDataset):
    """Rows without end, epoch after epoch, in an order of seed and epoch alone; made by `load_tokens`.

    Shards are permuted and rows mixed in a buffer. Ranks and the workers of a DataLoader get disjoint shares
    of each epoch, of one size: do not let `accelerate` share them out a second time. Where there are no rows,
    the first `next` raises `DatasetError`.

    Args:
        folder: The folder of the tokens.
        plan: Its plan.
        checksums: Whether to compare each shard with its hash when it is read.
        seed: Of the order.
        rank: This process.
        world_size: How many processes share the rows.
        skip: Rows that each worker passes over first, to go on where a run stopped.
        buffer_bytes: Bytes of tokens that are mixed; 0 keeps the order within a shard.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        *,
        checksums: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        skip: int = 0,
        buffer_bytes: int = BUFFER_BYTES,
    ):
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be at least 0 and below world_size {world_size}, got {rank}")
        self.plan, self._source = plan, _TokenShards(folder, plan, checksums)
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.skip, self.buffer_bytes = skip, buffer_bytes

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        index, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        order = ShardedOrder(
            self._source,
            self.seed,
            self.rank * workers + index,
            self.world_size * workers,
            self.buffer_bytes // workers,
            size=lambda row: row["tokens"].numel() * 8 + 400,  # 400: the Python objects around it
        )
        for _, row in order.pictures(self.skip):
            yield row


class _TokenShards:
    """What `ShardedOrder` asks of a source, over shards of tokens."""

    def __init__(self, folder: Path, plan: Plan, checksums: bool):
        self._folder, self._plan, self._checksums = folder, plan, checksums
        self.name, self.split = str(folder), plan.values["dataset"]["split"]
        self.num_shards = len(plan.shards)
        views = len(plan.views.names)
        records = [read_record(folder, plan, shard) for shard in plan.shards]
        self.shard_lengths = [r["rows"] - views * sum(r["unreadable"].values()) for r in records]

    def known_length(self, shard: int) -> int:
        return self.shard_lengths[shard]

    def read_shard(self, shard: int) -> Iterator[dict[str, Any]]:
        table = read_table(self._folder, self._plan, self._plan.shards[shard], checksums=self._checksums)
        rows = _Rows(self._plan, [table])
        yield from (rows[i] for i in range(len(rows)))
