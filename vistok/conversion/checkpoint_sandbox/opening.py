"""From a file to what `torch.save` saved, or the reason why not."""

import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from .allowed import ALLOWED

MAX_INFLATED = (
    64 * 2**20
)  # bytes of an archive's entries on top of twice its size; those of torch.save have less


class RefusedError(Exception):
    """The file is not opened; the message is what follows its name."""


def load(path: Path) -> Any:
    """What `torch.save` saved, without running code of it."""
    with path.open("rb") as file:
        is_zip = (
            file.read(4) == b"PK\x03\x04"
        )  # as torch tells; what was saved before 1.6 is a row of pickles
    mapped = is_zip and check_archive(path)
    try:
        with safe_globals(ALLOWED):
            if is_zip and (foreign := get_unsafe_globals_in_checkpoint(path)):
                raise RefusedError(_asks_for(foreign))
            return torch.load(path, weights_only=True, map_location="cpu", mmap=mapped)
    except (RefusedError, MemoryError, OSError):
        raise
    except Exception as error:  # a pickle of chance bytes raises whatever it likes
        if "alloc" in str(error):  # torch has RuntimeErrors for all of these
            raise MemoryError from None
        if re.search("resize storage|record size|byte size", str(error)):
            raise RefusedError("claims more than it holds: a tensor's storage is not all there") from None
        if foreign := foreign_globals(path, is_zip):
            raise RefusedError(_asks_for(foreign)) from None
        if "Unsupported operand" in str(error):
            raise RefusedError("is pickled otherwise than torch.save does by itself: save it again") from None
        # What torch says around it advises to open the file unsafely.
        what = str(error).partition("WeightsUnpickler error: ")[2].partition("Check the doc")[0] or str(error)
        raise RefusedError(f"is damaged, or no file of torch.save: {type(error).__name__}: {what}") from None


def _asks_for(names: list[str]) -> str:
    return (
        f"asks for {', '.join(sorted(set(names)))}, which weights do not need and which could run code: "
        "refused. If you trust it, save its tensors alone, by safetensors"
    )


def check_archive(path: Path) -> bool:
    """Whether the entries of a zip archive are stored as they are, so that the file can be mapped.

    Raises:
        RefusedError: It is no archive of `torch.save`, is damaged, or inflates to far more than it has.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = {entry.filename.partition("/")[2] or entry.filename for entry in entries}
            if "constants.pkl" in names:
                raise RefusedError("is a TorchScript archive, a program: save its state_dict() by torch.save")
            if names & {"archive_format", "models", "serialized_exported_program.json"}:
                raise RefusedError(
                    "is an exported program (.pt2): save the state_dict() of its model by torch.save"
                )
            if "data.pkl" not in names:
                raise RefusedError("is a zip archive, but none of torch.save")
            inflated = sum(entry.file_size for entry in entries)
            if inflated > 2 * path.stat().st_size + MAX_INFLATED:
                raise RefusedError(f"is a zip bomb: {path.stat().st_size:,} bytes inflate to {inflated:,}")
            for entry in entries:
                if entry.CRC:  # 0 where torch was told not to compute them
                    with archive.open(entry) as file:
                        while file.read(2**20):
                            pass
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, ValueError) as error:
        raise RefusedError(f"is a damaged archive, or not all of one: {error}") from None
    return all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)


def foreign_globals(path: Path, is_zip: bool) -> list[str]:
    """What a file that torch refuses asks for beyond tensors, as far as its pickles can be followed."""
    known = {"collections.OrderedDict", "_codecs.encode", *(name for _, name in ALLOWED)}
    of_tensors = re.compile(r"torch\.(\w+|_utils\._rebuild_\w+|nn\.parameter\.\w+|storage\.\w+Storage)")
    found: list[str] = []
    try:
        if is_zip:
            with zipfile.ZipFile(path) as archive:
                entry = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                with archive.open(entry) as file:
                    found.extend(_globals(file))
        else:
            with path.open("rb") as file:
                for _ in range(5):  # magic number, protocol, system, object, keys; then the storages
                    found.extend(_globals(file))
    except Exception:  # noqa: S110  what was found until there counts
        pass
    return [name for name in found if name not in known and not of_tensors.fullmatch(name)]


def _globals(pickled: BinaryIO) -> Iterator[str]:
    strings: list[str] = []
    for opcode, value, _ in pickletools.genops(pickled):
        if opcode.name in ("GLOBAL", "INST"):
            yield value.replace(" ", ".").replace("__builtin__.", "builtins.")
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(strings[-2:])
        elif isinstance(value, str):
            strings.append(value)
