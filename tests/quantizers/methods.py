"""Every registered method, small: with one codebook, several in every layout, and the variants of each.

A new method is tested from the moment it is registered: its configurations are found here, not named.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vistok import VisualTokenizerConfig
from vistok.quantizers import QUANTIZERS, Quantizer, build_quantizer

# Values that make a method small, by the name of the field; a field that is not here keeps its default.
SMALL = {
    "levels": [5, 4, 3],
    "codebook_size": 23,
    "codebook_dim": 4,
    "latent_dim": 4,
    "num_bits": 6,
    "scales": [1, 2, 3, 5],
}
# Variants of a method that take another way through its code.
VARIANTS = {
    "FSQConfig": [{"bound": "tan"}, {"levels": [2, *[8] * 9]}],
    "SFSQConfig": [{"levels": [2, *[8] * 9]}],
    "VQConfig": [
        {"normalize": True},
        {"normalize": True, "normalize_losses": False},
        {"entropy_weight": 0.1, "initialization": "normal"},
        {"initialization": "kmeans"},
        {"gradient": "rotation"},
    ],
    "EMAVQConfig": [
        {"normalize": True},
        {"initialization": "kmeans", "epsilon": 0.0},
        {"decay": 0.5, "revival_threshold": 0.5},
    ],
    "IBQConfig": [{"normalize": False}],
    "GumbelVQConfig": [{"straight_through": False}],
    "LFQConfig": [{"bit_order": "lsb", "normalize": True}, {"num_bits": 62, "entropy_weight": 0.0}],
    "BSQConfig": [{"group_size": 3}, {"num_bits": 62, "group_size": 2}],
    "MultiScaleVQConfig": [{"normalize": True}, {"phi_ratio": 0.0}, {"num_phis": 9, "scales": [2, 5]}],
    "OptVQConfig": [{"loss": "ce"}, {"train_assignment": "nearest"}, {"loss": "l1", "projection": False}],
}
LAYOUTS = [
    {"num_codebooks": 1},
    *(
        {"num_codebooks": 3, "codebook_layout": layout, "shared_codebook": shared}
        for layout, shared in itertools.product(("product", "residual"), (False, True))
    ),
]


@dataclass(frozen=True)
class Method:
    config_class: type[VisualTokenizerConfig]
    values: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        values = dict(self.values)
        parts = [self.config_class.__name__.removesuffix("Config")]
        parts += [f"{k}={v}" for k, v in values.items() if SMALL.get(k) != v and k not in LAYOUTS[1]]
        if values["num_codebooks"] > 1:
            parts += [values["codebook_layout"], "shared" if values["shared_codebook"] else "separate"]
        return "-".join(parts)

    def config(self, **more: Any) -> VisualTokenizerConfig:
        return self.config_class(**dict(self.values), **more)

    def build(self) -> Quantizer:
        torch.manual_seed(0)
        return build_quantizer(self.config())


def methods() -> list[Method]:
    found = []
    for config_class in QUANTIZERS:
        if not config_class.__module__.startswith("vistok."):
            continue  # of another test
        small = {name: value for name, value in SMALL.items() if name in config_class.own_fields()}
        residual_shared = LAYOUTS[-1]
        variants = [
            layout | variant
            for variant in VARIANTS.get(config_class.__name__, [])
            for layout in ([LAYOUTS[0]] if "num_bits" in variant else [LAYOUTS[0], residual_shared])
        ]
        for layout in [*LAYOUTS, *variants]:
            values = small | layout
            try:
                build_quantizer(config_class(**values))
            except ValueError as error:  # a method may refuse several codebooks, nothing else
                if layout["num_codebooks"] == 1 or "num_codebooks" not in str(error):
                    raise
                continue
            found.append(Method(config_class, tuple(values.items())))
    return found


METHODS = methods()


def several_scales(quantizer: Quantizer) -> bool:
    """Whether its tokens are a sequence of maps, which belong to no place, of the one grid that it takes."""
    return hasattr(quantizer, "scales")


def grid_for(quantizer: Quantizer, grid: tuple[int, ...] = (4, 5)) -> tuple[int, ...]:
    """The grid, or the one that the method takes."""
    return (quantizer.scales[-1],) * 2 if several_scales(quantizer) else grid


def latents_for(
    quantizer: Quantizer, batch: int = 4, grid: tuple[int, ...] = (4, 5), seed: int = 0
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(batch, quantizer.latent_dim, *grid_for(quantizer, grid), generator=generator)
