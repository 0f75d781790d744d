"""Checkpoints that appear whole or not at all.

A checkpoint is written under a temporary name, flushed to the disk, marked complete and renamed. A kill, a
full disk or a power cut leaves the ones before as they were. Several processes write one together, into a
folder that they share.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..files import flush, free_space, reason_of
from .ranks import PeerError, together

_NAME = re.compile(r"checkpoint-(\d+)")
_RESULTS = ("README.md", "config.json", "model.safetensors")  # of a finished run, or somebody's own
_LEFTOVER = re.compile(r"\.tmp-((removed-)?checkpoint-\d+|publish|upload|log\.jsonl)")
_MARKER = "complete.json"  # written last: what it lists is there in full


class CheckpointError(ValueError):
    """A checkpoint cannot be written, found or read; the message says what to do."""


def save_checkpoint(
    accelerator: Accelerator,
    output_dir: Path,
    step: int,
    write: Callable[[Path], None],
    state: dict[str, Any],
) -> Path:
    """Writes `checkpoint-{step}`. Every process calls it.

    Args:
        accelerator: Of this process.
        output_dir: The folder of the run.
        step: Optimizer steps taken; it names the checkpoint.
        write: Writes this process's files of the checkpoint into a folder.
        state: What else to keep, plain values; `load_state` returns it.

    Raises:
        CheckpointError: It could not be written, for example because the disk is full; nothing of it is left.
        PeerError: That happened to another process.
    """
    final = output_dir / f"checkpoint-{step}"
    temporary = output_dir / f".tmp-checkpoint-{step}"

    def begin() -> None:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)

    def finish() -> None:
        files = [path for path in temporary.rglob("*") if path.is_file()]
        for path in files:
            flush(path)
        sizes = {str(path.relative_to(temporary)): path.stat().st_size for path in files}
        marker = temporary / _MARKER
        marker.write_text(json.dumps({"files": sizes, "state": state}), encoding="utf-8")
        flush(marker)
        flush(temporary)
        if final.exists():  # of a run that went on from an earlier checkpoint
            remove_checkpoint(final)
        temporary.rename(final)
        flush(output_dir)

    try:
        together(accelerator, begin, main_only=True)
        together(accelerator, lambda: write(temporary))
        together(accelerator, finish, main_only=True)
    except PeerError:
        raise
    except Exception as error:  # torch reports a full disk as a RuntimeError, safetensors as its own error
        shutil.rmtree(temporary, ignore_errors=True)
        last = latest_checkpoint(output_dir)
        before = "there is no checkpoint before it"
        if last is not None:
            before = f"the last good checkpoint is {last}, of {_size(last) / 1e6:.1f} MB"
        raise CheckpointError(
            f"Could not write {final} ({free_space(output_dir)} are free): {reason_of(error)}; {before}; "
            "make room and resume with --resume_from_checkpoint latest"
        ) from error
    return final


def list_checkpoints(output_dir: Path) -> list[Path]:
    """The complete checkpoints of a run by rising step; never by the clock."""
    if not output_dir.is_dir():
        return []
    found = [(int(match[1]), path) for path in output_dir.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found) if is_complete(path)]


def latest_checkpoint(output_dir: Path) -> Path | None:
    """The complete checkpoint of the highest step, if there is one."""
    return next(reversed(list_checkpoints(output_dir)), None)


def checkpoint_to_resume(output_dir: Path, asked: str | None) -> Path | None:
    """The checkpoint that a run goes on from, None to start afresh.

    Args:
        output_dir: The folder of the run.
        asked: A checkpoint's path or name, `"latest"`, which may be none, or None.

    Raises:
        CheckpointError: The one asked for is not complete, or the folder holds what the run would replace.
    """
    latest = latest_checkpoint(output_dir)
    if latest is None:
        for name in _RESULTS:
            if (output_dir / name).exists():
                raise CheckpointError(
                    f"{output_dir} holds {name} and no checkpoint: the run would replace it; choose another "
                    "--output_dir"
                )
    if asked is None and latest is not None:
        raise CheckpointError(
            f"{output_dir} holds checkpoints of an earlier run (the last is {latest.name}): "
            "go on with --resume_from_checkpoint latest, or choose another --output_dir"
        )
    if asked is None or asked == "latest":
        return latest
    path = output_dir / asked if (output_dir / asked).is_dir() else Path(asked)
    if not is_complete(path):
        raise CheckpointError(f"resume_from_checkpoint: {asked} is not a complete checkpoint; try latest")
    if latest is not None and path.resolve().parent != output_dir.resolve():
        raise CheckpointError(
            f"resume_from_checkpoint: {asked} is of another run than those in {output_dir}, which would be "
            "lost: choose another --output_dir"
        )
    return path


def is_complete(checkpoint: Path) -> bool:
    """Whether every file that the marker lists is there at its full length."""
    try:
        marker = json.loads((checkpoint / _MARKER).read_text(encoding="utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in marker["files"].items())
    except (OSError, ValueError, KeyError):
        return False


def load_state(checkpoint: Path) -> dict[str, Any]:
    """The plain values that `save_checkpoint` kept.

    Raises:
        CheckpointError: It is no checkpoint, or not a complete one.
    """
    if not is_complete(checkpoint):
        raise CheckpointError(f"{checkpoint} is not a complete checkpoint of vistok")
    return json.loads((checkpoint / _MARKER).read_text(encoding="utf-8"))["state"]


def remove_checkpoint(checkpoint: Path) -> None:
    """Removes a checkpoint; killed in between, it never looks complete."""
    doomed = checkpoint.with_name(f".tmp-removed-{checkpoint.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    checkpoint.rename(doomed)
    shutil.rmtree(doomed)


def keep_newest(output_dir: Path, limit: int) -> None:
    """Removes all but the `limit` newest checkpoints."""
    for checkpoint in list_checkpoints(output_dir)[:-limit]:
        remove_checkpoint(checkpoint)


def remove_leftovers(output_dir: Path) -> None:
    """Removes what a killed run left half-written, and nothing of anybody else's."""
    for path in output_dir.glob(".tmp-*"):
        if _LEFTOVER.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
