"""What a tokenizer is, in values that can be written down and compared: hashes of weights and settings."""

import hashlib
import json
from typing import Any

import torch
from torch import nn

from ..modeling import VQModelHF
from .views import Views

# What transformers and vistok add to a configuration by themselves, and what a name alone may change.
_NOT_SETTINGS = ("transformers_version", "vistok_version", "dtype", "architectures", "_name_or_path")


def tensors_sha256(module: nn.Module) -> str:
    """A hash of every weight and buffer: name, dtype, shape and bytes, whatever file they came from.

    Example:
        >>> layer, other = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> before = tensors_sha256(layer), tensors_sha256(other)
        >>> _ = other.load_state_dict(layer.state_dict())
        >>> before[0] == before[1], before[0] == tensors_sha256(other)
        (False, True)
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def describe_tokenizer(model: VQModelHF, name: str, views: Views) -> dict[str, Any]:
    """A tokenizer as plain values: what it is called, what identifies it, and the shape of its tokens.

    Args:
        model: The tokenizer in float32.
        name: The folder or Hub id that it was loaded from.
        views: What it will encode.

    Raises:
        ValueError: It makes no tokens, or the views do not fit it.
    """
    if not model.codebook_size:
        raise ValueError(f"The model {name} has no codebook, so there are no tokens to extract")
    config = {key: value for key, value in model.config.to_diff_dict().items() if key not in _NOT_SETTINGS}
    grids = [model.encoder.grid(*size) for size in views.buckets or [(views.resolution, views.resolution)]]
    shape = model.quantizer.token_shape(grids[0])
    shape = shape if model.config.num_codebooks == 1 else shape[1:]
    if views.buckets and len(shape) != 2:
        raise ValueError(f"buckets need tokens on a grid of places; those of {name} are a sequence")
    return {
        "name": name,
        "revision": getattr(model.config, "_commit_hash", None),
        "config": config,
        "config_sha256": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
        "weights_sha256": tensors_sha256(model),
        "model_type": model.config.model_type,
        "codebook_size": model.codebook_size,
        "num_codebooks": model.config.num_codebooks,
        "grid": None if views.buckets else list(shape),
    }
