"""Work that one process or all do, and that fails on all where it fails on one."""

from collections.abc import Callable

from accelerate import Accelerator
from accelerate.utils import gather_object

from ..messages import one_line


class PeerError(RuntimeError):
    """Another process failed, which says why itself; this one only stops too."""


def together(accelerator: Accelerator, work: Callable[[], object], main_only: bool = False) -> None:
    """Does work on every process, or on the main one, and waits for all.

    Without it, the processes beside one whose disk is full would wait for it for ever.

    Args:
        accelerator: Of this process.
        work: What to do.
        main_only: Whether only the main process does it.

    Raises:
        PeerError: It failed on another process.
        Exception: What `work` raises, on the process where it failed.
    """
    if accelerator.num_processes == 1:
        work()
        return
    error = None
    if accelerator.is_main_process or not main_only:
        try:
            work()
        except Exception as caught:
            error = caught
    failures = gather_object([None if error is None else one_line(error)])
    if error is not None:
        raise error
    for rank, failure in enumerate(failures):
        if failure is not None:
            raise PeerError(f"Process {rank} failed: {failure}")
