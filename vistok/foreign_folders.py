"""Folders that other projects' classes wrote to the Hub: `VQModelHF.from_pretrained` loads them as they are.

They hold safetensors beside a `config.json` of constructor arguments: OptVQ's and TiTok's do. Everything else
needs `vistok convert`.
"""

import json
from dataclasses import replace
from typing import Any

from transformers.utils import SAFE_WEIGHTS_NAME, cached_file

from .modeling import VQModelHF
from .pretrained import FOREIGN_LOADERS

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
    hub = {key: value for key, value in arguments.items() if key in _OF_THE_HUB and value is not None}
    found = cached_file(name, "config.json", _raise_exceptions_for_missing_entries=False, **hub)
    if found is None:
        return None
    with open(found, encoding="utf-8") as file:
        settings = json.load(file)
    from .conversion.families import FAMILIES  # only here: a vistok folder needs none of it

    family = next((f for f in FAMILIES.values() if f.recognises and f.recognises(settings)), None)
    if family is None:
        return None
    taken = {*_OF_THE_HUB, "dtype", "torch_dtype", "device_map", "image_size"}
    unknown = sorted(key for key, value in arguments.items() if key not in taken and value is not None)
    device = arguments.get("device_map")
    if unknown or isinstance(device, dict) or device in ("auto", "balanced", "sequential"):
        raise ValueError(
            f"{name} is a folder of {family.project}; to load it with "
            f"{', '.join(unknown) or 'this device_map'}, convert it first: "
            f"vistok convert {family.name} {name} --output_dir DIR"
        )
    from .conversion.reading import read

    source = replace(read(cached_file(name, SAFE_WEIGHTS_NAME, **hub)), name=name, settings=settings)
    size = {"image_size": arguments["image_size"]} if arguments.get("image_size") is not None else {}
    model = family.convert(source, **size).model(name)
    dtype = arguments.get("dtype", arguments.get("torch_dtype"))
    model.to(dtype=None if dtype == "auto" else dtype, device=device)
    return model


FOREIGN_LOADERS.append(load_foreign_folder)
