"""TiTok: a picture as a short sequence of tokens, which have no places in it.

An Image is Worth 32 Tokens for Reconstruction and Generation. Yu et al. arXiv:2406.07550
Learned latent tokens pass through a transformer beside the patches, and only they are kept; the decoder's
transformer has learned mask tokens in place of the patches.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from ..configuration import NetworkConfig, number, numbers
from .base import Decoder, Encoder
from .layers import GROUPS
from .maskgit import MaskGITDecoder

_HEAD_DIM = 64  # channels of a head of attention, in all sizes


class TiTokConfig(NetworkConfig):
    """The settings of TiTok's encoder and decoder.

    The project's sizes of `hidden_size` and `num_layers`: small 512 and 8 (the default), base 768 and 12,
    large 1024 and 24.

    Args:
        num_latent_tokens: Tokens of a picture.
        image_size: Height and width of the pictures in pixels. Positions are learned, so no other size is
            taken; the tokenizer's `image_size` must be the same.
        patch_size: Height and width of a patch in pixels.
        hidden_size: Channels inside the encoder, a multiple of 64, the channels of a head.
        num_layers: Layers of the encoder.
        decoder_hidden_size: Channels inside the decoder, a multiple of 64.
        decoder_num_layers: Layers of the decoder.
        legacy: As the models that were released first (S-128, B-64, L-32), trained in two stages. The
            encoder's tokens are reshaped where a transpose was meant, and the decoder gives each patch the
            mean of a codebook's entries, weighed by a softmax, of which MaskGIT-VQGAN's decoder makes the
            picture. Else the decoder gives the pixels of each patch, and a convolution smooths them.
        pixel_codebook_size: With `legacy`, entries of that codebook.
        pixel_codebook_dim: With `legacy`, channels of an entry.
        pixel_hidden_channels: With `legacy`, `hidden_channels` of MaskGIT-VQGAN's decoder.
        pixel_channel_multipliers: With `legacy`, its `channel_multipliers`, as many as give `patch_size`.
        pixel_num_res_blocks: With `legacy`, its `num_res_blocks`.

    Example:
        >>> from vistok import TiTokConfig, VQConfig, VQModelHF
        >>> network = TiTokConfig(num_latent_tokens=32, image_size=64, patch_size=8, hidden_size=64)
        >>> VQModelHF(VQConfig(image_size=64, network=network)).token_shape
        (32,)
    """

    model_type = "vistok_titok"

    num_latent_tokens: int = number(128, at_least=1, below=2**16)
    image_size: int = number(256, at_least=1, below=2**16)
    patch_size: int = number(16, at_least=1, below=2**10)
    hidden_size: int = number(512, at_least=1, below=2**16)
    num_layers: int = number(8, at_least=1, below=1000)
    decoder_hidden_size: int = number(512, at_least=1, below=2**16)
    decoder_num_layers: int = number(8, at_least=1, below=1000)
    legacy: bool = False
    pixel_codebook_size: int = number(1024, at_least=1, below=2**31)
    pixel_codebook_dim: int = number(256, at_least=1, below=2**16)
    pixel_hidden_channels: int = number(128, at_least=1, below=2**16)
    pixel_channel_multipliers: list[int] | tuple[int, ...] = numbers((1, 1, 2, 2, 4), at_least=1, below=2**10)
    pixel_num_res_blocks: int = number(2, at_least=1, below=1000)

    def validate_sizes(self):
        """Patches must fill the picture, heads the channels, and the last decoder must end at its size."""
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} must be a multiple of patch_size {self.patch_size}"
            )
        for name in ("hidden_size", "decoder_hidden_size"):
            if getattr(self, name) % _HEAD_DIM:
                raise ValueError(f"{name} {getattr(self, name)} must be a multiple of {_HEAD_DIM}")
        if not self.legacy:
            return
        multipliers = self.pixel_channel_multipliers
        if self.patch_size != 2 ** (len(multipliers) - 1):
            raise ValueError(
                f"With legacy, patch_size {self.patch_size} must be {2 ** (len(multipliers) - 1)}: 2 to the "
                f"number of pixel_channel_multipliers {list(multipliers)} less one"
            )
        if any(self.pixel_hidden_channels * multiplier % GROUPS for multiplier in (1, *multipliers)):
            raise ValueError(
                f"With legacy, pixel_hidden_channels {self.pixel_hidden_channels} and its products with "
                f"pixel_channel_multipliers {list(multipliers)} must be multiples of {GROUPS}"
            )


class _Layer(GradientCheckpointingLayer):
    """Attention and an MLP, each normalized before and beside a skip."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden_size)
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)
        self.norm2 = nn.LayerNorm(hidden_size)
        self.up = nn.Linear(hidden_size, 4 * hidden_size)
        self.down = nn.Linear(4 * hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm1(x)).unflatten(2, (3, -1, _HEAD_DIM))
        q, k, v = qkv.transpose(1, 3).unbind(2)  # each (B, heads, tokens, _HEAD_DIM)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class _Transformer(nn.Module):
    """Layers over a class token, patches and latent tokens, with the learned position of each."""

    def __init__(self, hidden_size: int, num_layers: int, num_patches: int, num_latent_tokens: int):
        super().__init__()
        self.class_token = nn.Parameter(torch.empty(hidden_size))
        self.positions = nn.Parameter(
            torch.empty(1 + num_patches, hidden_size)
        )  # of the class token and patches
        self.latent_positions = nn.Parameter(torch.empty(num_latent_tokens, hidden_size))
        self.norm_in = nn.LayerNorm(hidden_size)
        self.layers = nn.ModuleList(_Layer(hidden_size) for _ in range(num_layers))
        self.norm_out = nn.LayerNorm(hidden_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws class token and positions anew."""
        for parameter in (self.class_token, self.positions, self.latent_positions):
            init.normal_(parameter, std=self.class_token.shape[0] ** -0.5)

    def forward(self, patches: Tensor, latents: Tensor, keep: slice) -> Tensor:
        """Float `(B, num_patches, C)` and `(B, num_latent_tokens, C)` -> float `(B, kept, C)`.

        What is kept is counted with the class token first, then patches, then latent tokens.
        """
        class_token = self.class_token.expand(patches.shape[0], 1, -1)
        x = torch.cat((class_token, patches), dim=1) + self.positions
        x = self.norm_in(torch.cat((x, latents + self.latent_positions), dim=1))
        for layer in self.layers:
            x = layer(x)
        return self.norm_out(x[:, keep])


class TiTokEncoder(Encoder):
    """Pictures to the features of their latent tokens.

    Args:
        num_latent_tokens: Tokens of a picture.
        image_size: Height and width of the pictures in pixels.
        patch_size: Height and width of a patch in pixels.
        hidden_size: Channels, a multiple of 64.
        num_layers: Number of layers.
        legacy: Whether the tokens are reshaped instead of transposed; see `TiTokConfig`.
    """

    config_class = TiTokConfig

    def __init__(
        self,
        num_latent_tokens: int = 128,
        image_size: int = 256,
        patch_size: int = 16,
        hidden_size: int = 512,
        num_layers: int = 8,
        legacy: bool = False,
    ):
        super().__init__()
        self.channels = hidden_size
        self.num_latent_tokens, self.image_size, self.legacy = num_latent_tokens, image_size, legacy
        self.patch_embed = nn.Conv2d(3, hidden_size, patch_size, stride=patch_size)
        self.latent_tokens = nn.Parameter(torch.empty(num_latent_tokens, hidden_size))
        num_patches = (image_size // patch_size) ** 2
        self.transformer = _Transformer(hidden_size, num_layers, num_patches, num_latent_tokens)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the latent tokens anew."""
        init.normal_(self.latent_tokens, std=self.channels**-0.5)

    def grid(self, height: int, width: int) -> tuple[int]:
        """The number of latent tokens.

        Raises:
            ValueError: The picture is not of `image_size`.
        """
        if (height, width) != (self.image_size, self.image_size):
            raise ValueError(
                f"This network has learned positions for pictures of exactly {self.image_size} x "
                f"{self.image_size}, got {height} x {width}"
            )
        return (self.num_latent_tokens,)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """See `Encoder`; the features are float `(B, channels, num_latent_tokens)`."""
        patches = self.patch_embed(pixel_values).flatten(2).transpose(1, 2)
        latents = self.latent_tokens.expand(patches.shape[0], -1, -1)
        tokens = self.transformer(patches, latents, slice(-self.num_latent_tokens, None))
        if self.legacy:  # not the transpose that was meant: the released weights expect it
            return tokens.reshape(-1, self.channels, self.num_latent_tokens)
        return tokens.transpose(1, 2)


class TiTokDecoder(Decoder):
    """Features of latent tokens to pictures.

    Args:
        num_latent_tokens: Tokens of a picture.
        image_size: Height and width of the pictures in pixels.
        patch_size: Height and width of a patch in pixels.
        decoder_hidden_size: Channels, a multiple of 64.
        decoder_num_layers: Number of layers.
        legacy: Whether MaskGIT-VQGAN's decoder makes the pixels; see `TiTokConfig` for it and what follows.
        pixel_codebook_size: Entries of its codebook.
        pixel_codebook_dim: Channels of an entry.
        pixel_hidden_channels: Channels of its finest level, for a multiplier of 1.
        pixel_channel_multipliers: Width of each of its levels, the finest first.
        pixel_num_res_blocks: Its residual blocks per level.
    """

    config_class = TiTokConfig

    def __init__(
        self,
        num_latent_tokens: int = 128,
        image_size: int = 256,
        patch_size: int = 16,
        decoder_hidden_size: int = 512,
        decoder_num_layers: int = 8,
        legacy: bool = False,
        pixel_codebook_size: int = 1024,
        pixel_codebook_dim: int = 256,
        pixel_hidden_channels: int = 128,
        pixel_channel_multipliers: list[int] | tuple[int, ...] = (1, 1, 2, 2, 4),
        pixel_num_res_blocks: int = 2,
    ):
        super().__init__()
        width = decoder_hidden_size
        self.channels = width
        self.num_latent_tokens, self.patch_size, self.legacy = num_latent_tokens, patch_size, legacy
        self.rows = image_size // patch_size
        self.mask_token = nn.Parameter(torch.empty(width))
        self.transformer = _Transformer(width, decoder_num_layers, self.rows**2, num_latent_tokens)
        if legacy:
            self.to_logits = nn.Sequential(
                nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, pixel_codebook_size)
            )
            self.pixel_codebook = nn.Parameter(torch.empty(pixel_codebook_size, pixel_codebook_dim))
            self.pixel_decoder = MaskGITDecoder(
                pixel_codebook_dim, pixel_hidden_channels, pixel_channel_multipliers, pixel_num_res_blocks
            )
        else:
            self.to_pixels = nn.Linear(width, 3 * patch_size**2)
            self.smooth = nn.Conv2d(3, 3, 3, padding=1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the mask token anew, and with `legacy` the pixel codebook."""
        init.normal_(self.mask_token, std=self.channels**-0.5)
        if self.legacy:
            init.normal_(self.pixel_codebook)

    @property
    def last_layer(self) -> nn.Parameter:
        """See `Decoder`."""
        return self.pixel_decoder.last_layer if self.legacy else self.smooth.weight

    def forward(self, features: Tensor) -> Tensor:
        """See `Decoder`; the features are float `(B, channels, num_latent_tokens)`.

        Raises:
            ValueError: There are more or fewer latent tokens than the network has.
        """
        if features.shape[2] != self.num_latent_tokens:
            raise ValueError(
                f"Expected {self.num_latent_tokens} latent tokens a picture, got {features.shape[2]}"
            )
        masks = self.mask_token.expand(features.shape[0], self.rows**2, -1)
        patches = self.transformer(masks, features.transpose(1, 2), slice(1, 1 + self.rows**2))
        patches = patches.unflatten(1, (self.rows, self.rows))
        if self.legacy:
            entries = self.to_logits(patches).softmax(3) @ self.pixel_codebook
            return self.pixel_decoder(entries.permute(0, 3, 1, 2))
        pixels = self.to_pixels(patches).unflatten(3, (self.patch_size, self.patch_size, 3))
        pixels = pixels.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (B, H, W, 3)
        return self.smooth(pixels.permute(0, 3, 1, 2))
