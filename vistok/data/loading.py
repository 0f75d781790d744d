"""Worker processes for a stream that shards itself: torch's DataLoader, kept from three of its habits.

Its random base seed comes from a generator of our own and not from the global one; an error in a worker
arrives as the error, not as a page of two tracebacks; memory is pinned only where there is a device to pin it
for.
"""

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, IterableDataset

from .sources import DatasetError


class _ErrorsAsItems(IterableDataset):
    """Yields a dataset's error as its last item, because torch wraps what a worker raises."""

    def __init__(self, dataset: IterableDataset):
        self.dataset = dataset

    def __iter__(self) -> Iterator:
        try:
            yield from self.dataset
        except DatasetError as error:
            yield error


def load(dataset: IterableDataset, num_workers: int, pin_memory: bool = False) -> Iterator:
    """Yield the items of a dataset made by `num_workers` processes, 0 for this one.

    Raises:
        DatasetError: as the dataset raises it; or a worker died.
    """
    if num_workers == 0 and not pin_memory:
        yield from dataset
        return
    loader = DataLoader(
        _ErrorsAsItems(dataset),
        batch_size=None,  # the dataset makes batches
        num_workers=num_workers,
        pin_memory=pin_memory and torch.accelerator.is_available(),
        generator=torch.Generator(),
    )
    try:
        for item in loader:
            if isinstance(item, DatasetError):
                raise item
            yield item
    except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
        # torch notices a dead worker, or the socket breaks over which it was handing a batch on.
        raised_by_dataset = "Caught" in str(error)
        if raised_by_dataset or (isinstance(error, RuntimeError) and "DataLoader worker" not in str(error)):
            raise
        raise DatasetError(
            "a data worker died, most often for lack of memory (also of /dev/shm): "
            "use fewer --dataloader_num_workers"
        ) from error
