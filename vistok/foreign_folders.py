"""Folders that other projects' classes wrote to the Hub: `VQModelHF.from_pretrained` loads them as they are.

They hold safetensors beside a `config.json` of constructor arguments: OptVQ's and TiTok's do. Everything else
needs `vistok convert`.
"""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from .messages import one_line
from .modeling import VQModelHF
from .pretrained import FOREIGN_LOADERS

if TYPE_CHECKING:
    from .conversion.base import Family

# What transformers needs for models of its own; here there is one way.
_WITHOUT_EFFECT = ("low_cpu_mem_usage", "attn_implementation", "trust_remote_code")
_OF_THE_HUB = ("revision", "token", "cache_dir", "local_files_only", "force_download", "subfolder")


def load_foreign_folder(name: str, arguments: dict[str, Any]) -> VQModelHF | None:
    """Loads a folder that a family of `vistok.conversion` recognises by its `config.json`.

    Args:
        name: A folder or a Hub id.
        arguments: Those of `from_pretrained`: of the Hub, `dtype`, `device_map` as one device, `image_size`.

    Returns:
        The model in eval mode, or None where no family recognises the folder.

    Raises:
        ValueError: Its weights do not fit, or an argument needs a converted folder.
    """
    recognised = _recognised(name, arguments)
    if recognised is None:
        return None
    family, settings = recognised
    hub = _of_the_hub(arguments)
    taken = {*_OF_THE_HUB, *_WITHOUT_EFFECT, "dtype", "torch_dtype", "device_map", "image_size"}
    unknown = sorted(key for key, value in arguments.items() if key not in taken and value is not None)
    device = arguments.get("device_map")
    if isinstance(device, dict) and device.keys() == {""}:
        device = device[""]
    if unknown or isinstance(device, dict) or device in ("auto", "balanced", "balanced_low_0", "sequential"):
        raise ValueError(
            f"{name} is a folder of {family.project}; to load it with "
            f"{', '.join(unknown) or 'this device_map'}, convert it first: "
            f"vistok convert {family.name} {name} --output_dir DIR"
        )
    from .conversion.base import check_given
    from .conversion.reading import read

    check_given({"image_size": arguments.get("image_size")})
    source = replace(read(_weights_of(name, hub)), name=name, settings=settings)
    size = {"image_size": arguments["image_size"]} if arguments.get("image_size") is not None else {}
    try:
        model = family.convert(source, **size).model(name)
    except (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        # What a family takes for granted of its own files, a damaged one does not have.
        raise ValueError(f"{name} is damaged: {type(error).__name__}: {one_line(error)}") from error
    dtype = arguments.get("dtype", arguments.get("torch_dtype"))
    if isinstance(dtype, str):
        dtype = None if dtype == "auto" else getattr(torch, dtype, dtype)
    if not (dtype is None or isinstance(dtype, torch.dtype)):
        raise ValueError(f"Expected a dtype such as torch.bfloat16, got {dtype!r}")
    model.to(dtype=dtype, device=device)
    return model


def _weights_of(name: str, hub: dict[str, Any]) -> str:
    """The file of the weights, or the index of several, which are then there too if they are anywhere."""
    from .conversion.shards import shards_of

    found = partial(cached_file, name, _raise_exceptions_for_missing_entries=False, **hub)
    if whole := found(SAFE_WEIGHTS_NAME):
        return whole
    if index := found(SAFE_WEIGHTS_INDEX_NAME):
        for shard in sorted(set(shards_of(Path(index)).values())):
            found(shard)
        return index
    raise ValueError(f"{name} holds neither {SAFE_WEIGHTS_NAME} nor {SAFE_WEIGHTS_INDEX_NAME}")


def foreign_image_size(name: str, arguments: dict[str, Any]) -> int | None:
    """Height and width of the pictures of such a folder in pixels; None where no family recognises it.

    Args:
        name: A folder or a Hub id.
        arguments: Those of `from_pretrained`; the ones of the Hub count.
    """
    recognised = _recognised(name, arguments)
    if recognised is None:
        return None
    from .conversion.base import setting

    return setting(recognised[1], "crop_size", "resolution", default=256)


def _recognised(name: str, arguments: dict[str, Any]) -> "tuple[Family, dict[str, Any]] | None":
    """The family of a folder, and the content of its `config.json`."""
    found = cached_file(
        name, "config.json", _raise_exceptions_for_missing_entries=False, **_of_the_hub(arguments)
    )
    if found is None:
        return None
    with open(found, encoding="utf-8") as file:
        settings = json.load(file)
    if not isinstance(settings, dict):
        return None
    from .conversion.families import FAMILIES  # only here: a vistok folder needs none of it

    family = next((f for f in FAMILIES.values() if f.recognises and f.recognises(settings)), None)
    return None if family is None else (family, settings)


def _of_the_hub(arguments: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if key in _OF_THE_HUB and value is not None}


FOREIGN_LOADERS.append(load_foreign_folder)
