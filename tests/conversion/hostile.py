"""Files that attack whoever opens them, or are broken; what they would do is leave a file named `canary`."""

import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch

LEGACY = {"_use_new_zipfile_serialization": False}


class Call:
    """Unpickled, it calls a function."""

    def __init__(self, function: Callable, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Storage:
    """Unpickled by torch, it is the storage `data/0` of so many float32."""

    def __init__(self, length: int):
        self.length = length


class Vector:
    """Unpickled by torch, it is all of a storage."""

    def __init__(self, storage: Storage):
        self.storage = storage

    def __reduce__(self):
        arguments = (self.storage, 0, (self.storage.length,), (1,), False, OrderedDict())
        return torch._utils._rebuild_tensor_v2, arguments


def archive(
    path: Path, pickled: bytes, data: bytes = bytes(64), compression: int = zipfile.ZIP_STORED
) -> None:
    """Writes what `torch.save` would, around any pickle."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/byteorder", "little")
        file.writestr("archive/data/0", data)
        file.writestr("archive/version", "3\n")


def claim(path: Path, length: int, data: bytes = bytes(64), **how) -> None:
    """Writes a checkpoint whose one storage says that it has `length` elements."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            if isinstance(obj, Storage):
                return "storage", torch.FloatStorage, "0", "cpu", obj.length
            return None

    with open(path.with_suffix(".pkl"), "wb") as file:
        Pickler(file, protocol=2).dump({"model": {"weight": Vector(Storage(length))}})
    archive(path, path.with_suffix(".pkl").read_bytes(), data, **how)
    path.with_suffix(".pkl").unlink()


def write_system_call(path: Path, canary: Path) -> None:
    """Writes the plainest attack: a checkpoint that is a call of `os.system`."""
    torch.save(Call(os.system, f"touch {canary}"), path)


def write_all(folder: Path, canary: Path) -> dict[str, str]:
    """Writes one file of each kind; returns what its refusal must say, by the file's name."""
    touch = f"touch {canary}"
    system = Call(os.system, touch)
    weights = {"weight": torch.ones(4)}
    python = f"open({str(canary)!r}, 'w')"
    write_system_call(folder / "system.pt", canary)
    torch.save(system, folder / "legacy.pt", **LEGACY)
    (folder / "raw.pkl.bin").write_bytes(pickle.dumps(system, protocol=2))
    (folder / "raw4.pkl.bin").write_bytes(pickle.dumps(system, protocol=4))
    torch.save({"model": {**weights, "x": Call(eval, python)}}, folder / "eval.pt")
    torch.save({"model": weights, "x": [{"y": Call(exec, python)}]}, folder / "nested.ckpt")
    by_path = (
        b"\x80\x02cposixpath\nos.system\nX" + len(touch).to_bytes(4, "little") + touch.encode() + b"\x85R."
    )
    archive(folder / "global.pt", by_path)
    torch.save({"model": weights, "x": system}, folder / "protocol.pt", pickle_protocol=4)
    torch.save({"weight": torch.zeros(1).expand(10**6, 10**6)}, folder / "expanded.pt")
    claim(folder / "claims.pt", 10**12)
    claim(folder / "deflated_claims.pt", 10**12, compression=zipfile.ZIP_DEFLATED)
    claim(folder / "bomb.pt", 2**26, bytes(2**28), compression=zipfile.ZIP_DEFLATED)
    torch.save({"model": {"weight": torch.arange(1000.0)}}, folder / "whole.pt")
    whole = (folder / "whole.pt").read_bytes()
    (folder / "truncated.pt").write_bytes(whole[: len(whole) // 2])
    torch.save({"model": {"weight": torch.arange(1000.0)}}, folder / "legacy_whole.pt", **LEGACY)
    legacy = (folder / "legacy_whole.pt").read_bytes()
    (folder / "legacy_truncated.pt").write_bytes(legacy[:-2000])
    length = legacy.index(b"cpuq") + 5  # where the pickle says 1000, in two bytes
    huge = b"\x8a\x06" + (10**12).to_bytes(6, "little")
    (folder / "legacy_claims.pt").write_bytes(legacy[:length] + huge + legacy[length + 3 :])
    flipped = bytearray(whole)
    flipped[whole.index(torch.arange(1000.0)[500:510].numpy().tobytes())] ^= 1
    (folder / "flipped.pt").write_bytes(flipped)
    return {
        "system.pt": "posix.system", "legacy.pt": "posix.system", "raw.pkl.bin": "posix.system",
        "raw4.pkl.bin": "posix.system", "protocol.pt": "posix.system", "global.pt": "posixpath.os.system",
        "eval.pt": "builtins.eval", "nested.ckpt": "builtins.exec",
        "expanded.pt": "claims more than it holds", "claims.pt": "claims more than it holds",
        "deflated_claims.pt": "claims more than it holds", "legacy_claims.pt": "asks for more memory",
        "bomb.pt": "zip bomb", "truncated.pt": "damaged",
        "legacy_truncated.pt": "damaged", "flipped.pt": "damaged",
    }  # fmt: skip
