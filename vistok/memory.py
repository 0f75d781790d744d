"""How a process's allocator treats memory that tensors on a CPU leave."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # mallopt's names for them, as malloc.h numbers them


def keep_freed_memory() -> bool:
    """Keeps freed memory for the next tensor of this process, instead of giving it back to the kernel.

    By default glibc maps each tensor above some megabytes anew, and the kernel clears its pages one by one: a
    third of the time of a convolutional encoder on a CPU. The process then holds what it needed at its peak
    until it ends, which suits a job, not a server. Nothing is computed differently.

    Returns:
        Whether the C library has such a setting and took it; only glibc has.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
