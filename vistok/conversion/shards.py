"""A checkpoint in several safetensors files, beside the index that says which tensor is in which."""

import json
from pathlib import Path

INDEX = ".safetensors.index.json"  # how its name ends
_MAX_INDEX = 8 * 2**20  # bytes; 10,000 tensors have 1 MB


def shards_of(index: Path) -> dict[str, str]:
    """The files that an index names.

    Args:
        index: A file whose name ends in `INDEX`, as `save_pretrained` of transformers writes it.

    Returns:
        The name of a file beside it for each tensor.

    Raises:
        ValueError: It is no such index, or names files elsewhere; one line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index = Path(folder, "model.safetensors.index.json")
        ...     _ = index.write_text('{"weight_map": {"weight": "model-00001-of-00002.safetensors"}}')
        ...     shards_of(index)
        {'weight': 'model-00001-of-00002.safetensors'}
    """
    try:
        if index.stat().st_size > _MAX_INDEX:
            raise ValueError(f"it has {index.stat().st_size:,} bytes")
        content = json.loads(index.read_bytes())
        weight_map = content["weight_map"]
        names = set(weight_map.values())
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of safetensors files: {type(error).__name__}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"{index} names {ascii(name)[:100]}, which is no safetensors file beside it")
    if not names:
        raise ValueError(f"{index} names no files")
    return weight_map
