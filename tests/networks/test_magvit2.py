"""What is Open-MAGVIT2's own; the rest is in test_group_norm_networks.py and tests/conversion/."""

import pytest
import torch
from torch.nn import functional as F

from vistok import MAGVIT2Config
from vistok.networks.magvit2 import AdaptiveGroupNorm

from .test_group_norm_networks import NETWORKS, pictures, small


def test_adaptive_norm_is_its_formula():
    torch.manual_seed(0)
    norm = AdaptiveGroupNorm(64, 5)
    x, style = torch.randn(2, 64, 6, 4) * 3 + 1, torch.randn(2, 5, 3, 2)
    grouped = x.view(2, 32, -1)
    grouped = (grouped - grouped.mean(2, keepdim=True)) / (
        grouped.var(2, correction=0, keepdim=True) + 1e-6
    ).sqrt()
    places = style.flatten(2)
    deviation = (
        (places - places.mean(2, keepdim=True)).square().sum(2) / 5 + 1e-6
    ).sqrt()  # 6 places less one
    scale, shift = norm.gamma(deviation), norm.beta(places.mean(2))
    wanted = grouped.view_as(x) * scale[:, :, None, None] + shift[:, :, None, None]
    torch.testing.assert_close(norm(x, style), wanted, atol=1e-5, rtol=1e-5)


def test_a_single_place_has_no_deviation():
    # The unbiased variance of one number is not a number; the picture is one all the same.
    model = small(NETWORKS[0])
    with torch.no_grad():
        assert model.decode(model.encode(pictures()[:, :, :2, :2]).tokens).isfinite().all()


def test_upsampling_moves_four_groups_of_channels_to_four_pixels():
    (upsample,) = small(NETWORKS[0]).decoder.upsamples
    x = torch.randn(2, 64, 3, 5)
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        found = upsample(given)
        groups = F.conv2d(x, upsample.conv.weight, upsample.conv.bias, padding=1).unflatten(1, (2, 2, 64))
        for i in range(2):
            for j in range(2):
                torch.testing.assert_close(found[:, :, i::2, j::2], groups[:, i, j], atol=1e-5, rtol=1e-5)
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_widths_that_have_no_groups_are_refused():
    with pytest.raises(ValueError, match="hidden_channels 40.*multiples of 32"):
        MAGVIT2Config(hidden_channels=40)
