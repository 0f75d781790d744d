"""StridedCNN's own gradient of wide convolutions is the one that torch works out."""

import pytest
import torch
from torch.nn import functional as F

from vistok.networks.strided_cnn import StridedCNNDecoder, StridedCNNEncoder


@pytest.mark.parametrize("frozen", ["nothing", "weight", "input"])
@pytest.mark.parametrize("part", ["down", "up"])
def test_wide_layers_have_torch_s_gradients(part, frozen):
    torch.manual_seed(0)
    layer = StridedCNNEncoder(256, 2).downs[1] if part == "down" else StridedCNNDecoder(4, 256, 2).ups[1]
    x = torch.randn(2, 256, 6, 8).contiguous(memory_format=torch.channels_last)
    x.requires_grad_(frozen != "input")
    layer.conv.weight.requires_grad_(frozen != "weight")
    wanted = [tensor for tensor in (x, *layer.conv.parameters()) if tensor.requires_grad]
    result = layer(x)
    assert "_Convolution" in type(result.grad_fn.next_functions[0][0]).__name__  # the path under test
    expected = F.relu(layer.conv(x))
    torch.testing.assert_close(result, expected)
    weights = torch.randn_like(expected)
    gradients = [torch.autograd.grad(y, wanted, weights) for y in (result, expected)]
    for ours, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-3)


def test_autocast_and_narrow_layers_are_left_to_torch():
    x = torch.randn(1, 256, 4, 4)
    wide, narrow = StridedCNNEncoder(256, 2).downs[1], StridedCNNEncoder(64, 2).downs[1]
    with torch.autocast("cpu", torch.bfloat16):
        assert wide(x).dtype == torch.bfloat16
    assert "_Convolution" not in type(narrow(x[:, :64]).grad_fn.next_functions[0][0]).__name__
