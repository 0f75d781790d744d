"""VQGAN's layers as taming-transformers and LlamaGen compute them, on the weights of a vistok model.

Contiguous tensors, three convolutions for queries, keys and values, two batched products around a softmax,
activations that allocate, and nearest-neighbour copies that are convolved in full.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vistok import VQModelHF
from vistok.networks.layers import Attention, Downsample, ResidualBlock, Upsample


class PlainVQGAN(nn.Module):
    """The same maths, layer by layer.

    Args:
        model: A tokenizer with VQGAN's network; its weights are copied.
    """

    def __init__(self, model: VQModelHF):
        super().__init__()
        self.model = copy.deepcopy(model)
        for parameter in self.model.parameters():
            parameter.data = parameter.data.contiguous()
        self.split = {
            module: [
                (weight.contiguous(), bias.contiguous())
                for weight, bias in zip(module.qkv.weight.chunk(3), module.qkv.bias.chunk(3), strict=True)
            ]
            for module in self.model.modules()
            if isinstance(module, Attention)
        }

    def encode(self, pixel_values: Tensor) -> Tensor:
        """Float `(B, 3, H, W)` -> latents `(B, latent_dim, h, w)`."""
        encoder = self.model.encoder
        x = encoder.conv_in(pixel_values)
        for place, level in enumerate(encoder.levels):
            x = self._level(level, x)
            if place < len(encoder.downsamples):
                x = self._layer(encoder.downsamples[place], x)
        for layer in encoder.middle:
            x = self._layer(layer, x)
        return self.model.to_latents(encoder.conv_out(_swish(encoder.norm_out(x))))

    def decode(self, quantized: Tensor) -> Tensor:
        """Float `(B, quantized_dim, h, w)` -> pixel values `(B, 3, H, W)`."""
        decoder = self.model.decoder
        x = decoder.conv_in(self.model.from_quantized(quantized))
        for layer in decoder.middle:
            x = self._layer(layer, x)
        for place, level in enumerate(decoder.levels):
            x = self._level(level, x)
            if place < len(decoder.upsamples):
                x = self._layer(decoder.upsamples[place], x)
        return decoder.conv_out(_swish(decoder.norm_out(x)))

    def _level(self, level: nn.Module, x: Tensor) -> Tensor:
        for place, block in enumerate(level.blocks):
            x = self._layer(block, x)
            if level.attentions:
                x = self._layer(level.attentions[place], x)
        return x

    def _layer(self, layer: nn.Module, x: Tensor) -> Tensor:
        if isinstance(layer, ResidualBlock):
            hidden = layer.conv1(_swish(layer.norm1(x)))
            hidden = layer.conv2(_swish(layer.norm2(hidden)))
            return layer.shortcut(x) + hidden
        if isinstance(layer, Attention):
            return x + self._attend(layer, x)
        if isinstance(layer, Downsample):
            return layer.conv(F.pad(x, (0, 1, 0, 1)))
        if isinstance(layer, Upsample):
            return layer.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        raise TypeError(type(layer))

    def _attend(self, layer: Attention, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        hidden = layer.norm(x)
        q, k, v = (F.conv2d(hidden, *part).flatten(2) for part in self.split[layer])
        shares = torch.bmm(q.transpose(1, 2), k).mul(channels**-0.5).softmax(2)
        return layer.out(torch.bmm(v, shares.transpose(1, 2)).view(batch, channels, height, width))


def _swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)
