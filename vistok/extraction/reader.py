"""Tokens for training: all in memory, or streamed shard by shard. Both check what they read."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from ..data import ShardedOrder
from ..modeling import VQModelHF
from .identity import describe_tokenizer
from .layout import unflatten_tokens
from .manifest import open_complete
from .plan import Plan, PlanError
from .shard_reading import read_record, read_table

if TYPE_CHECKING:
    import pyarrow as pa

BUFFER_BYTES = 256 * 2**20  # tokens mixed by a stream: half a million pictures of 256 tokens in 16 bits
_OWN = ("sha256", "status", "tokens")  # columns that a row of training does not repeat


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
        Rows that can be read: a dict of `tokens` (int64 `(L,)`), `label` (an integer, where there are
        labels), `view`, `file`, `row`, `key`, the columns that were kept, and `height` and `width` of the
        token grid where pictures have several shapes.

    Raises:
        PlanError: There is no plan, it is damaged, or the tokens are of another tokenizer.
        IncompleteError: The extraction has not ended.
        ShardError: A shard is missing, damaged or exchanged; a stream raises it when it comes there.
    """
    folder = Path(path)
    if not folder.is_dir() and str(path).count("/") == 1 and not str(path).startswith((".", "/", "~")):
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(str(path), repo_type="dataset", revision=revision))
    plan = open_complete(folder)
    if model is not None:
        check_tokenizer(plan, model)
    if streaming:
        return TokenStream(folder, plan, checksums=checksums, **stream)
    if stream:
        raise TypeError(f"{', '.join(stream)} is for streaming=True")
    return TokenDataset(folder, plan, checksums=checksums)


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
    """The rows with tokens of one or several tables, as dicts."""

    def __init__(self, tables: "list[pa.Table]"):
        import pyarrow as pa
        import pyarrow.compute as pc

        tables = [table.filter(pc.equal(table["status"], 0)) for table in tables]
        lists = [table["tokens"].combine_chunks() for table in tables]
        self._values = np.concatenate([each.flatten().to_numpy() for each in lists])
        lengths = [pc.list_value_length(each).to_numpy(zero_copy_only=False) for each in lists]
        self._ends = np.cumsum(np.concatenate(lengths).astype(np.int64))
        rest = [name for name in tables[0].column_names if name not in _OWN]
        table = pa.concat_tables([each.select(rest) for each in tables]).combine_chunks()
        self._columns = {
            name: table[name].to_numpy() if pa.types.is_integer(table[name].type) else table[name].chunk(0)
            for name in rest
            if len(table) and table[name].null_count < len(table)
        }

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
            row[name] = int(column[i]) if isinstance(column, np.ndarray) else column[i].as_py()
        return row


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
        self._rows = _Rows([read_table(folder, plan, shard, checksums=checksums) for shard in plan.shards])

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
    of each epoch, of one size: do not let `accelerate` share them out a second time.

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
        rows = _Rows([table])
        yield from (rows[i] for i in range(len(rows)))
