"""One worker's way through the shards: threads read and decode ahead, the device encodes, a thread writes.

A shard goes through in blocks of about a thousand pictures, so that memory does not grow with it. Batches do
not reach over blocks; in them every picture has its place, whether it can be read or not, so that the tokens
of a picture depend on nothing but the plan.
"""

import errno
import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..data import Source
from ..files import free_space
from .batches import Batches
from .encoding import TokenEncoder
from .leases import Leases
from .plan import PLAN, Plan, Shard
from .rows import RowReader, decode_row, refuse
from .shard_reading import is_done
from .shards import ShardWriter, TokenRow

BLOCK = 1024  # pictures that go through together, rounded down to whole batches
_END = object()


class Worker:
    """Extracts the shards that nobody else works on.

    Args:
        folder: The folder of the plan.
        plan: The plan.
        source: The rows.
        encoder: Pixels to tokens.
        leases: The leases of this worker.
        on_error: `"error"` stops at a picture that cannot be read, `"skip"` keeps its place without tokens.
        threads: Threads that decode.
        bar: A progress bar, which counts pictures.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        source: Source,
        encoder: TokenEncoder,
        leases: Leases,
        on_error: str,
        threads: int,
        bar: tqdm,
    ):
        self._folder, self._plan, self._source, self._encoder = folder, plan, source, encoder
        self._leases, self._on_error, self._threads, self._bar = leases, on_error, threads, bar
        self._block = max(1, BLOCK // encoder.batch_size) * encoder.batch_size

    def extract(self, shards: list[Shard]) -> None:
        """Extracts those of the shards that are not done and that nobody alive holds.

        Raises:
            DatasetError: A picture or a file cannot be read.
            ValueError: A latent is not finite.
        """
        window = 2 * self._threads + -(-2 * self._encoder.batch_size // len(self._plan.views.names))
        with (
            ThreadPoolExecutor(self._threads) as decoding,
            ThreadPoolExecutor(1) as writing,
            _Ahead(lambda: self._rows(shards, decoding), window) as rows,
        ):
            writes = _Writes(writing)
            try:
                self._go_through(rows, writes)
                writes.wait()
            except BaseException as error:
                writes.abort()
                if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # which names no file
                    text = f"{os.strerror(errno.ENOSPC)} ({free_space(self._folder)} are free)"
                    raise OSError(errno.ENOSPC, text, str(self._folder)) from error
                raise

    def _rows(
        self, shards: list[Shard], decoding: ThreadPoolExecutor
    ) -> Iterator[tuple[Shard, Future | None]]:
        """Yield each row of each shard that we get as a future, and None at the end of a shard."""
        reader, views = RowReader(self._source), self._plan.views
        for shard in shards:
            if is_done(self._folder, self._plan, shard) or not self._leases.claim(shard.name):
                continue
            if is_done(self._folder, self._plan, shard):  # between the look and the claim
                self._leases.release(shard.name)
                continue
            for picture in reader.read(shard):
                yield shard, decoding.submit(decode_row, picture, views)
            yield shard, None

    def _go_through(self, rows: Iterator[tuple[Shard, Future | None]], writes: "_Writes") -> None:
        batches = Batches(self._encoder, self._plan.views)
        block: list[TokenRow] = []
        writer = None
        for shard, future in rows:
            if writer is None:
                writer = ShardWriter(self._folder, self._plan, shard, self._source.keep_types)
                writes.open.append(writer)
            if future is not None:
                row, pixels = future.result()
                if row.status and self._on_error == "error":
                    raise refuse(self._plan, shard, row, str(pixels))
                batches.add(row, None if row.status else pixels)
                block.append(row)
                self._bar.update()
            if block and (future is None or len(block) == self._block):
                batches.flush()
                writes.submit(writer.write, block)
                block = []
            if future is None:
                writes.submit(self._commit, shard, writer, writes)
                writer = None

    def _commit(self, shard: Shard, writer: ShardWriter, writes: "_Writes") -> None:
        try:
            writer.commit(self._encoder.device)
        except FileNotFoundError:
            # Our lease was taken while this machine slept, and with it the unfinished file. Whoever took it
            # writes the same; if not, the shard is still missing when we look again.
            if not (self._folder / PLAN).exists():
                raise
            writer.abort()
        writes.open.remove(writer)
        self._leases.release(shard.name)


class _Ahead:
    """Runs an iterator in a thread, a number of items ahead; its errors come where the items do."""

    def __init__(self, items: Callable[[], Iterator], window: int):
        self._make = items
        self._queue: queue.Queue = queue.Queue(window)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Iterator:
        self._thread.start()
        return self._items()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for item in self._make():
                if not self._put(item):
                    return
            self._put(_END)
        except BaseException as error:
            self._put(error)

    def _put(self, item: Any) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def _items(self) -> Iterator:
        while (item := self._queue.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item


class _Writes:
    """What the writing thread does, in order, at most `BEHIND` jobs behind; nothing after one that failed."""

    BEHIND = 4

    def __init__(self, thread: ThreadPoolExecutor):
        self._thread = thread
        self._pending: list[Future] = []
        self._failed = False
        self.open: list[ShardWriter] = []

    def submit(self, job: Callable, *arguments: Any) -> None:
        """Adds a job; raises what an earlier one raised."""
        while len(self._pending) >= self.BEHIND:
            self._pending.pop(0).result()
        self._pending.append(self._thread.submit(self._run, job, arguments))

    def wait(self) -> None:
        """Waits for all jobs; raises what one of them raised."""
        while self._pending:
            self._pending.pop(0).result()

    def abort(self) -> None:
        """Lets jobs be, and deletes what is half-written."""
        self._failed = True
        wait(self._pending)
        for writer in self.open:
            writer.abort()

    def _run(self, job: Callable, arguments: tuple) -> None:
        if self._failed:
            return
        try:
            job(*arguments)
        except BaseException:
            self._failed = True
            raise
