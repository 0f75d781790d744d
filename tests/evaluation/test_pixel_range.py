"""Levels as Pillow would save them, and decoders whose range is another one."""

import numpy as np
import pytest
import torch
from skimage import data

from vistok.evaluation.pixel_range import check_range, to_levels


@pytest.fixture(scope="module")
def references():
    return torch.from_numpy(data.astronaut()[100:164, 100:164]).movedim(-1, 0)[None]


def test_levels_are_rounded_and_clamped():
    levels = torch.tensor([0.0, 0.49, 0.51, 254.4, 254.6, 300.0, -20.0])
    assert to_levels(levels / 127.5 - 1).tolist() == [0, 0, 1, 254, 255, 255, 0]


def test_every_level_comes_back():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_levels(levels.float() / 127.5 - 1), levels)


def test_rounding_has_a_quarter_of_the_error_of_cutting_off():
    exact = torch.rand(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 254
    error = to_levels(exact / 127.5 - 1).double() - exact
    assert error.square().mean().item() == pytest.approx(1 / 12, rel=0.02)  # cut off: 1 / 3
    assert abs(error.mean().item()) < 0.01


@pytest.mark.parametrize(("scale", "shift", "name"), [(0.5, 0.5, r"\[0, 1\]"), (127.5, 127.5, r"\[0, 255\]")])
def test_another_range_is_named_with_both_numbers(references, scale, shift, name):
    reconstruction = (references.float() / 127.5 - 1) * 0.95 * scale + shift
    with pytest.raises(
        ValueError, match=rf"in \[-1, 1\], got values from .* read as {name} they have a PSNR of "
    ):
        check_range(reconstruction, references)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x * 0.9,  # a good model
        lambda x: x * 1.5,  # one that overshoots
        torch.zeros_like,  # one that draws gray
        lambda x: torch.rand(x.shape),  # one that knows nothing
        lambda x: x * 0.3,  # one that has begun to learn
    ],
)
def test_what_is_in_range_or_shows_nothing_passes(references, make):
    check_range(make(references.float() / 127.5 - 1), references)


def test_a_dark_picture_of_an_untrained_model_passes():
    rng = np.random.default_rng(0)
    dark = torch.from_numpy(rng.integers(0, 20, (2, 3, 16, 16), dtype=np.uint8))
    check_range(torch.full(dark.shape, 0.01), dark)
