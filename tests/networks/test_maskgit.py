"""What is MaskGIT's own; the rest is in test_group_norm_networks.py and tests/conversion/."""

import pytest
import torch
from torch.nn import functional as F

from vistok import MaskGITConfig
from vistok.networks import build_encoder

from .test_group_norm_networks import NETWORKS, small


def test_a_block_that_changes_the_width_forgets_its_input():
    # The original's quirk, which the weights need: the skip is computed from the block's own output.
    encoder = build_encoder(MaskGITConfig(hidden_channels=32, channel_multipliers=[2], num_res_blocks=2))
    widening, other = encoder.levels[0]
    x = torch.randn(1, 32, 4, 4)
    features = widening.conv2(F.silu(widening.norm2(widening.conv1(F.silu(widening.norm1(x))))))
    torch.testing.assert_close(widening(x), features + F.conv2d(features, widening.shortcut.weight))
    for convolution in (widening.conv2, other.conv2):
        torch.nn.init.zeros_(convolution.weight)
    assert not widening(x).any()
    y = torch.randn(1, 64, 4, 4)
    assert torch.equal(other(y), y)


def test_strided_convolutions_pad_on_the_right_and_below():
    encoder = small(NETWORKS[3]).encoder
    x = torch.randn(1, 32, 6, 8)
    (down,) = encoder.downsamples
    wanted = F.conv2d(F.pad(x, (0, 1, 0, 1)), down.conv.weight, down.conv.bias, stride=2)
    torch.testing.assert_close(down(x), wanted)
    assert wanted.shape == (1, 32, 3, 4)


@pytest.mark.parametrize(
    "fields", [{"hidden_channels": 48}, {"hidden_channels": 16, "channel_multipliers": [2]}]
)
def test_widths_that_have_no_groups_are_refused(fields: dict):
    # The second has levels of 32 channels, but its first block normalizes 16.
    with pytest.raises(ValueError, match=f"hidden_channels {fields['hidden_channels']}.*multiples of 32"):
        MaskGITConfig(**fields)
