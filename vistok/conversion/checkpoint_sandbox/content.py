"""From what a checkpoint holds to a safetensors file of its tensors."""

import json
import math
from typing import Any, BinaryIO

import torch
from torch import Tensor

from .allowed import Namespace
from .opening import RefusedError

MAX_HEADER = 8 * 2**20  # bytes for all names and shapes; 10,000 tensors need one

_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.complex64: "C64", torch.bool: "BOOL",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8",
}  # fmt: skip
Groups = dict[str, dict[str, Tensor]]


def sort_out(content: Any) -> tuple[Groups, list[str], dict[str, Any]]:
    """Sorts a checkpoint's content.

    Returns:
        The dictionaries of tensors in it by name (`""`: itself); the names of what else it holds, such as
        optimizers; the arguments of its training run.
    """
    if not isinstance(content, dict):
        raise RefusedError(f"holds one {type(content).__name__}, not a dictionary of tensors")
    groups: Groups = {}
    own: dict[str, Tensor] = {}
    others: list[str] = []
    settings: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Tensor) and isinstance(name, str):
            own[name] = value
        elif isinstance(value, dict) and (tensors := _tensors(value)):
            groups[str(name)] = tensors
            others += [f"{name}.{other}" for other in value if other not in tensors]
        else:
            others.append(str(name))
            if isinstance(value, Namespace):
                settings.update(_plain(vars(value).get("arguments")))
    if own and not groups:
        groups[""] = own
    else:
        others += own
    if not groups:
        raise RefusedError(f"holds no tensors to convert, only {', '.join(others) or 'nothing'}")
    return groups, others, settings


def _tensors(value: dict) -> dict[str, Tensor]:
    return {
        name: tensor for name, tensor in value.items() if isinstance(tensor, Tensor) and isinstance(name, str)
    }


def _plain(arguments: Any) -> dict[str, Any]:
    """The arguments that JSON knows; flat, because a nested list may hold itself, or itself many times."""
    scalar = (str, int, float, bool, type(None))
    return {
        name: value
        for name, value in (arguments.items() if isinstance(arguments, dict) else ())
        if isinstance(name, str)
        and (isinstance(value, scalar) or (isinstance(value, list) and len(value) < 100))
        and all(isinstance(item, scalar) for item in (value if isinstance(value, list) else ()))
    }


def write(
    groups: Groups, others: list[str], settings: dict[str, Any], output: BinaryIO, at_most: int
) -> None:
    """Writes tensors as a safetensors file, one after another: safetensors' own writer wants all in memory.

    Args:
        groups: Tensors by group and name; a tensor is called `'["group", "name"]'` in the file.
        others: Goes into the file's metadata.
        settings: As `others`.
        output: The file.
        at_most: The bytes that all tensors may have.
    """
    tensors = {json.dumps([group, name]): t for group, named in groups.items() for name, t in named.items()}
    # The wide first: each starts at a multiple of its element's size, as readers ask.
    tensors = dict(sorted(tensors.items(), key=lambda item: -item[1].element_size()))
    header: dict[str, Any] = {
        "__metadata__": {"others": json.dumps(others), "settings": json.dumps(settings)}
    }
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + _size(name, tensor)
        if end > at_most:
            raise RefusedError(
                f"claims more than it holds: with {name}, of shape {tuple(tensor.shape)}, {end:,} bytes"
            )
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise RefusedError(
            f"has {len(tensors):,} tensors with names of {len(text):,} bytes, which no model has"
        )
    output.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors.values():
        if tensor.numel():
            plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
            output.write(plain.view(-1).view(torch.uint8).numpy())


def _size(name: str, tensor: Tensor) -> int:
    """The bytes of a tensor.

    Raises:
        RefusedError: Its elements are not simply there, one after another.
    """
    if (
        tensor.layout != torch.strided
        or tensor.is_quantized
        or tensor.is_nested
        or tensor.device.type != "cpu"
    ):
        kind = "quantized" if tensor.is_quantized else f"{tensor.layout} on {tensor.device.type}"
        raise RefusedError(f"holds {name}, which is no plain tensor ({kind})")
    if tensor.dtype not in _DTYPES:
        raise RefusedError(f"holds {name} of {tensor.dtype}, which safetensors does not know")
    return math.prod(tensor.shape) * tensor.element_size()
