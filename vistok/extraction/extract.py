"""Pictures of a dataset become shards of tokens, by any number of workers that may die at any moment."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..data import IndexedSource, Source
from ..modeling import VQModelHF
from .card import CARD, write_card
from .encoding import PROBED, TokenEncoder, exact_arithmetic, share_differing
from .identity import describe_tokenizer
from .layout import TOKEN_ORDERS
from .leases import TIMEOUT, Leases
from .manifest import (
    END,
    LEASES,
    MANIFEST,
    IncompleteError,
    damaged_shards,
    describe_shards,
    finish,
    leftovers,
    read_manifest,
    tidy,
)
from .plan import PLAN, Plan, Shard, make_plan, publish_plan
from .rows import RowReader, decode_row
from .shard_reading import ShardError, is_done, remove_shard
from .shards import check_columns
from .views import Views
from .worker import Worker

POLL = 0.5  # seconds between looks at what other workers still hold


def extract(
    model: VQModelHF,
    source: Source,
    output_dir: str | Path,
    *,
    views: Views | None = None,
    batch_size: int = 64,
    dtype: str = "fp32",
    token_order: str = "place_major",
    shard_size: int = 4096,
    on_error: str = "error",
    worker_index: int = 0,
    num_workers: int = 1,
    decode_threads: int | None = None,
    lease_timeout: float = TIMEOUT,
    progress: bool = True,
) -> dict[str, Any]:
    """Writes the tokens of every picture of a split into a folder.

    Started again with the same arguments after any interruption, it goes on; several of these calls, on any
    machines that see the folder, share the work. Whatever happened on the way, in float32 the shards' bytes
    are those of one uninterrupted call.

    Args:
        model: The tokenizer in float32, on the device that shall encode.
        source: The split, of `vistok.data.open_dataset`; with `memory_budget=0` Parquet files are streamed.
        output_dir: The folder; made if needed.
        views: What is made of a picture; by default its centre at the model's `image_size`.
        batch_size: Views in a batch. It is part of the plan, because it decides about last bits.
        dtype: `"fp32"`, or `"bf16"`, which is faster on a GPU and changes some percent of the tokens; the
            share is measured on 1,000 pictures and recorded.
        token_order: Of several codebooks, `"place_major"` or `"codebook_major"`.
        shard_size: Pictures in a shard; a tar is one shard.
        on_error: `"error"` stops at a picture that cannot be read, `"skip"` keeps its place without tokens.
        worker_index: Which of the workers this is, so that they begin at different shards.
        num_workers: How many workers there are, about; nothing depends on it.
        decode_threads: Threads that decode; by default as many as there are cores, at most 16.
        lease_timeout: Seconds after which a worker on another machine without a sign of life is dead.
        progress: Whether to show a progress bar.

    Returns:
        The manifest: counts, unreadable pictures by reason, hashes.

    Raises:
        PlanError: The folder holds tokens of another plan; the message names what differs.
        DatasetError: A picture or a file cannot be read.
        ValueError: An argument is out of range, or a latent is not finite.

    Example:
        >>> import tempfile
        >>> from vistok import FSQConfig, SimpleCNNConfig, VQModelHF
        >>> from vistok.data import open_dataset
        >>> from vistok.extraction import load_tokens
        >>> model = VQModelHF(FSQConfig(image_size=16, network=SimpleCNNConfig(hidden_channels=4)))
        >>> folder = tempfile.mkdtemp()
        >>> photographs = open_dataset("samples", split="validation")
        >>> extract(model, photographs, folder, progress=False)["pictures"]
        128
        >>> row = load_tokens(folder, model=model)[9]
        >>> row["tokens"].shape, row["label"]
        (torch.Size([16]), 1)
    """
    folder = Path(output_dir)
    views = views or Views(model.config.image_size)
    if on_error not in ("error", "skip"):
        raise ValueError(f"on_error must be error or skip, got {on_error!r}")
    if token_order not in TOKEN_ORDERS:
        raise ValueError(f"token_order must be one of {', '.join(TOKEN_ORDERS)}, got {token_order!r}")
    if not 0 <= worker_index < num_workers:
        raise ValueError(
            f"worker_index must be at least 0 and below num_workers {num_workers}, got {worker_index}"
        )
    if decode_threads is not None and decode_threads < 1:
        raise ValueError(f"decode_threads must be at least 1, got {decode_threads}")
    check_columns(source.keep_types)
    threads = decode_threads or min(16, os.cpu_count() or 1)
    with exact_arithmetic():
        encoder = TokenEncoder(model, batch_size, dtype, token_order)
        numerics = encoder.recipe()
        if dtype != "fp32" and not (folder / PLAN).exists():
            exact = TokenEncoder(model, batch_size, "fp32", token_order)
            numerics["share_differing_from_float32"] = share_differing(encoder, exact, _first(source, views))
        plan = publish_plan(
            folder,
            make_plan(
                source,
                describe_tokenizer(model, model.name_or_path or "a model in memory", views),
                views,
                numerics,
                shard_size=shard_size,
                token_order=token_order,
            ),
        )
        with Leases(folder / LEASES, lease_timeout) as leases, _bar(plan, folder, progress) as bar:
            worker = Worker(folder, plan, source, encoder, leases, on_error, threads, bar)
            first = worker_index * len(plan.shards) // num_workers
            return _until_finished(folder, plan, worker, leases, first, bar)


def _until_finished(
    folder: Path, plan: Plan, worker: Worker, leases: Leases, first: int, bar: tqdm
) -> dict[str, Any]:
    in_turn = plan.shards[first:] + plan.shards[:first]
    if (folder / MANIFEST).exists():  # complete once: what was damaged since is made anew
        for shard in damaged_shards(folder, plan):
            remove_shard(folder, shard)
    while True:
        missing = [shard for shard in in_turn if not is_done(folder, plan, shard)]
        if missing:
            worker.extract(missing)
            if not all(is_done(folder, plan, shard) for shard in missing):
                bar.set_postfix_str("waiting for other workers")
                time.sleep(POLL)
            continue
        manifest = _finished(folder, plan)
        if manifest is not None and (folder / CARD).exists() and not leftovers(folder):
            return manifest
        if not leases.claim(END):
            time.sleep(POLL)
            continue
        if manifest is not None or not finish(folder, plan):
            write_card(folder, plan)
            tidy(folder)
        leases.release(END)


def _finished(folder: Path, plan: Plan) -> dict[str, Any] | None:
    """The manifest, where there is one and it lists the shards as they are."""
    try:
        manifest = read_manifest(folder, plan)
        return manifest if manifest == describe_shards(folder, plan) else None
    except (IncompleteError, ShardError, ValueError):
        return None


def _first(source: Source, views: Views) -> Iterator[np.ndarray]:
    """The first views of the first pictures, of the shape that the first of them has."""
    rows = PROBED if source.num_rows is None else min(PROBED, source.num_rows)
    if isinstance(source, IndexedSource):
        shards = [Shard(0, "", 0, 0, rows)]
    else:
        shards = [Shard(file, "", file, 0, None) for file in range(source.num_shards)]
    reader, shape = RowReader(source), None
    for shard in shards:
        for picture in reader.read(shard):
            row, pixels = decode_row(picture, views)
            if row.status == 0 and pixels[0].shape == (shape or pixels[0].shape):
                shape = pixels[0].shape
                yield pixels[0]


def _bar(plan: Plan, folder: Path, progress: bool) -> tqdm:
    lengths = [file["rows"] for file in plan.values["dataset"]["files"]]
    total = None if None in lengths else sum(lengths)
    done = 0
    with suppress(TypeError):  # shards of unknown length
        done = sum(s.stop - s.start for s in plan.shards if is_done(folder, plan, s))
    return tqdm(total=total, initial=done, desc="Extracting", unit="picture", disable=not progress)
