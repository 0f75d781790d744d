"""The tokens that a tokenizer would give by another assignment, where its quantizer offers one."""

import numpy as np
import torch

from .reconstruction import Reconstruction
from .tokenizers import Tokenizer


@torch.inference_mode()
def other_assignments(tokenizer: Tokenizer, shown: Reconstruction) -> dict[str, np.ndarray]:
    """The tokens of a picture by each assignment beside the usual one, by its name.

    Args:
        tokenizer: Which tokenizer.
        shown: What it made of the picture.

    Returns:
        int64 `(*token_shape)` by name; empty where the quantizer offers no other assignment.
    """
    if not tokenizer.other_assignments:
        return {}
    latents = tokenizer.model.encode_latents(tokenizer.pixel_values(shown.processor, shown.original))
    found = tokenizer.model.quantizer.other_assignments(latents)
    return {name: tokens[0].cpu().numpy() for name, tokens in found.items()}
