"""What names of weights say, and what they cannot make anybody do: a name costs a file nothing."""

import pytest
import torch

from vistok.conversion.base import Source, numbered, rename
from vistok.conversion.families import FAMILIES


def named(*names: str) -> dict[str, torch.Tensor]:
    return dict.fromkeys(names, torch.zeros(1))


def test_numbers_count_from_0():
    weights = named("down.1.a", "down.0.a", "down.0.b", "up.7.a")
    assert numbered(weights, r"down\.(\d+)\.") == 2
    assert numbered(weights, r"mid\.(\d+)\.") == 0
    assert numbered(named("blocks.4.w", "blocks.0.w", "blocks.2.w"), r"blocks\.(\d+)\.", step=2) == 3


@pytest.mark.parametrize(
    ("names", "step", "said"),
    [
        (["down.0.a", "down.99999999999.a"], 1, "Of down.N it has 99999999999 but not 1"),
        (["down.1.a"], 1, "Of down.N it has 1 but not 0"),
        (["down.0.a", "down.1.a"], 2, "Of down.N it has 1 but not 2"),
        ([f"down.{number}.a" for number in range(4)], 1, "It has 4 of down.N, more than any tokenizer"),
    ],
)
def test_numbers_with_gaps_and_too_many_are_refused(names, step, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        numbered(named(*names), r"down\.(\d+)\.", step=step, most=3)


@pytest.mark.parametrize(
    ("family", "shapes", "list_"),
    [
        ("visual_tokenizer", {"encoder.conv_in.weight": (32, 3, 3, 3)}, "encoder.down_blocks.{}.0.x"),
        ("visual_tokenizer", {"encoder.downblocks.0.weight": (32, 3, 4, 4)}, "encoder.resblocks.{}.x"),
        (
            "llamagen",
            {
                "encoder.conv_in.weight": (32, 3, 3, 3),
                "encoder.conv_blocks.0.res.0.conv2.weight": (32, 32, 3, 3),
            },
            "encoder.conv_blocks.{}.res.0.conv2.weight",
        ),
        ("fsq_pytorch", {"enc.blocks.0.weight": (32, 3, 4, 4)}, "enc.blocks.{}.weight"),
        (
            "titok",
            {
                "encoder.patch_embed.weight": (8, 3, 4, 4),
                "encoder.positional_embedding": (5, 8),
                "latent_tokens": (4, 8),
            },
            "encoder.transformer.{}.ln_1.weight",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("numbers", [[10**6], range(65)], ids=["one large", "many"])
def test_no_family_counts_to_what_a_name_says(family, shapes, list_, numbers):
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    weights |= {
        list_.format(number * (1 + (family == "fsq_pytorch"))): torch.zeros(32, 32, 3, 3)
        for number in numbers
    }
    with pytest.raises(ValueError, match=r"it has \d+ but not|more than any tokenizer"):
        FAMILIES[family].convert(Source("x", {"": weights}))


def test_a_level_has_few_layers():
    weights = named(*(f"encoder.down_blocks.0.{place}.qkv.weight" for place in range(65)))
    weights["encoder.conv_in.weight"] = torch.zeros(32, 3, 3, 3)
    with pytest.raises(ValueError, match="has 65 layers, more than any tokenizer"):
        FAMILIES["visual_tokenizer"].convert(Source("x", {"": weights}))


def test_many_names_times_many_rules_are_refused():
    weights = named(*(f"a.{number}" for number in range(5000)))
    with pytest.raises(ValueError, match="5,000 weights of 4,000 kinds are more than any tokenizer has"):
        rename(weights, {rf"b\.{number}": "c" for number in range(4000)})
