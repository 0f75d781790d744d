"""Reads the tensors of a checkpoint that somebody published: no code of the file runs, whatever it holds."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..messages import one_line
from .base import Source
from .shards import INDEX, shards_of

TIME_LIMIT = 300  # seconds to open a pickle, and 1 more for each 10 MB of it
_MAX_HEADER = 8 * 2**20  # bytes of a safetensors header; 10,000 tensors have 1 MB
_NOT_WEIGHTS = {  # how what is no checkpoint begins, where it is easily taken for one
    rb"version https://git-lfs": "is a pointer of Git LFS, not the file itself: run `git lfs pull`",
    rb"\s*<[!?\w]": "is a page of HTML or XML, not a checkpoint: the download went wrong",
    rb"\s*[\[{]\s*[\"\[{]": "is JSON, not a checkpoint: the download went wrong, or these are settings",
}
# What the process that opens pickles gets of the environment: enough to find torch, and nothing secret.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP")


def read(path: str | os.PathLike) -> Source:
    """Reads a checkpoint.

    A safetensors file is read as it is, an index of several with all of them. What `torch.save` wrote is
    opened by another process (`checkpoint_sandbox/`), with `weights_only=True`, a limit on memory and time,
    and no way to start programs, write or reach a network.

    Args:
        path: A `.safetensors` file, the `.safetensors.index.json` of several, or one of `torch.save`: `.pt`,
            `.pth`, `.ckpt`, `.bin`.

    Returns:
        The tensors, mapped from a file: memory is used where they are. `settings` holds the arguments of the
        training run, if the file does.

    Raises:
        ValueError: It is neither, damaged, or holds what could run code or exhaust the machine; one line.

    Example:
        >>> import tempfile, torch
        >>> file = tempfile.NamedTemporaryFile(suffix=".pt")
        >>> torch.save({"model": {"weight": torch.ones(2)}, "epoch": 3}, file.name)
        >>> source = read(file.name)
        >>> source.groups, source.others
        ({'model': {'weight': tensor([1., 1.])}}, ('epoch',))
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is {'not a file' if path.exists() else 'not there'}")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if not head:
        raise ValueError(f"{path} is empty")
    if path.name.endswith(INDEX):
        return _printable(Source(name=str(path), groups={"": _read_shards(path)}))
    if head[8:9] != b"{":
        for beginning, what in _NOT_WEIGHTS.items():
            if re.match(beginning, head):
                raise ValueError(f"{path} {what}")
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        source = Source(name=str(path), groups={"": _read_safetensors(path, path)[0]})
    elif head.startswith((b"PK\x03\x04", b"\x80")):
        source = _read_pickle(path)
    else:
        raise ValueError(f"{path} is neither a safetensors file nor one of torch.save")
    return _printable(source)


def _printable(source: Source) -> Source:
    """The source, if messages and reports may show its names in a terminal."""
    names = [*source.groups, *source.others, *(name for group in source.groups.values() for name in group)]
    for name in names:
        if not name.isprintable():
            raise ValueError(f"{source.name} holds a name with unprintable characters: {ascii(name)[:100]}")
    return source


def _read_shards(index: Path) -> dict[str, Tensor]:
    weight_map = shards_of(index)
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(weight_map.values())):
        shard = index.with_name(name)
        if not shard.is_file():
            raise ValueError(f"{index} names {name}, which is not there: download it too")
        found = _read_safetensors(shard, shard)[0]
        wanted = {key for key, file in weight_map.items() if file == name}
        if wrong := found.keys() ^ wanted:
            where = "only the file" if min(wrong) in found else "only the index"
            raise ValueError(f"{index} does not fit {shard.name}: {where} has {ascii(min(wrong))}")
        tensors |= found
    return tensors


def _read_safetensors(path: Path, name: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file; `name` is for messages."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(_MAX_HEADER, path.stat().st_size - 8):
        raise ValueError(
            f"{name} is no safetensors file, or not all of one: "
            f"its header would have {length:,} bytes, the file has {path.stat().st_size:,}"
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  it is no dictionary
            return tensors, file.metadata() or {}
    except (SafetensorError, KeyError, AttributeError, RuntimeError, ValueError, OSError) as error:
        raise ValueError(f"{name} is no safetensors file, or a damaged one: {one_line(error)}") from error


def _read_pickle(path: Path) -> Source:
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    environment |= {
        # Where torch is, and `checkpoint_sandbox`: last, so that its neighbours hide no other module.
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, [*filter(None, sys.path), Path(__file__).parent])),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",  # each thread's arena would count as memory used
    }
    time_limit = TIME_LIMIT + path.stat().st_size // 10**7
    with tempfile.TemporaryDirectory(prefix="vistok-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        weights = folder / "weights.safetensors"
        command = [sys.executable, "-P", "-s", "-m", "checkpoint_sandbox", str(path.absolute()), str(weights)]
        try:
            process = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=time_limit,
            )
        except subprocess.TimeoutExpired:
            raise ValueError(f"{path} took longer than {time_limit} seconds to open: refused") from None
        if status := process.returncode:
            last = " ".join(process.stderr.decode(errors="replace").splitlines()[-1:])
            how = f"was ended by signal {-status}" if status < 0 else f"failed: {last}"
            raise ValueError(one_line(f"{path} is refused: the process that opened it {how}"))
        if reason := process.stdout.decode(errors="replace"):
            raise ValueError(one_line(f"{path} {reason}"))
        tensors, metadata = _read_safetensors(weights, path)
    groups: dict[str, dict[str, Tensor]] = {}
    for label, tensor in tensors.items():
        group, tensor_name = json.loads(label)
        groups.setdefault(group, {})[tensor_name] = tensor
    others, settings = json.loads(metadata["others"]), json.loads(metadata["settings"])
    return Source(name=str(path), groups=groups, settings=settings, others=tuple(others))
