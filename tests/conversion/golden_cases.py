"""Small checkpoints in the layouts of the original projects, and what those projects make of them.

One safetensors file a case: `weights/GROUP/NAME`, exact in float16; `expected/PICTURES/FIELD`; the project's
configuration file as JSON in the metadata. The numbers are those of the originals' code, float32 on a CPU.
"""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from vistok import VQModelHF
from vistok.conversion.base import Source

GOLDEN = Path(__file__).parent / "golden"


def golden(case: str) -> tuple[Source, dict[str, dict[str, Tensor]]]:
    """The checkpoint of a case, and what is expected by the name of the pictures (`square`, `ema/square`)."""
    groups: dict[str, dict[str, Tensor]] = {}
    expected: dict[str, dict[str, Tensor]] = {}
    with safe_open(GOLDEN / f"{case}.safetensors", "pt") as stored:
        settings = json.loads(stored.metadata()["settings"])
        for key in stored.keys():  # noqa: SIM118 (it is no dictionary)
            kind, _, rest = key.partition("/")
            if kind == "weights":
                group, _, name = rest.partition("/")
                value = stored.get_tensor(key)
                groups.setdefault(group, {})[name] = value.float() if value.dtype == torch.half else value
            else:
                pictures, _, field = rest.rpartition("/")
                expected.setdefault(pictures, {})[field] = stored.get_tensor(key)
    return Source(case, groups, settings), expected


def close(actual: Tensor, wanted: Tensor, name: str, relative: float = 1e-4) -> None:
    """Asserts that the largest difference is small beside the largest value."""
    assert actual.shape == wanted.shape, name
    error = float((actual - wanted).abs().max() / wanted.abs().max())
    assert error <= relative, f"{name} differs by {error:.1e} of its largest value"


@torch.no_grad()
def assert_as_expected(model: VQModelHF, expected: dict[str, Tensor]) -> None:
    """Asserts that a model makes the tokens, latents, vectors and pictures of the original."""
    pixel_values = expected["pixel_values"]
    out = model.encode(pixel_values)
    assert torch.equal(out.tokens, expected["tokens"])
    assert len(out.tokens.unique()) > 10, "too few tokens to tell anything"
    close(model.encode_latents(pixel_values), expected.get("logits", expected["latents"]), "latents")
    close(out.quantized, expected["quantized"], "quantized")
    picture = expected.get("reconstruction_pixel_values", expected["reconstruction"])
    close(model.decode(expected["tokens"]), picture, "reconstruction")
