"""VQModelHF: a picture becomes tokens and comes back, by any quantizer and network that a config names."""

import re
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from transformers import MODEL_MAPPING

from .configuration import VisualTokenizerConfig, on_registration
from .networks import Decoder, Encoder, build_decoder, build_encoder, takes_quantized
from .pretrained import PreTrainedTokenizerModel, as_channels_last
from .quantizers import Quantizer, QuantizerOutput, build_quantizer


@dataclass
class TokenizerOutput(QuantizerOutput):
    """What a tokenizer makes of pictures.

    Attributes:
        quantized: float `(B, quantized_dim, *grid)`, the vectors of the tokens; gradients reach the encoder.
        tokens: int64 `(B, *token_shape)`, or None without quantization.
        losses: The quantizer's named scalars, already weighted; empty in eval mode.
        reconstruction: float `(B, 3, H, W)`, about [-1, 1], not clamped.
    """

    reconstruction: Tensor | None = None


class VQModelHF(PreTrainedTokenizerModel):
    """A visual tokenizer: an encoder, a quantizer and a decoder.

    Args:
        config: The configuration of a quantizer, with its network.

    Raises:
        ValueError: `image_size` does not fit the network, or no quantizer or network is registered for the
            configuration.

    Example:
        >>> import torch
        >>> from vistok import FSQConfig, SimpleCNNConfig, VQModelHF
        >>> model = VQModelHF(FSQConfig(levels=[8, 5, 5, 5], image_size=64, network=SimpleCNNConfig())).eval()
        >>> tokens = model.encode(torch.zeros(2, 3, 64, 64)).tokens
        >>> tuple(tokens.shape), tuple(model.decode(tokens).shape)
        ((2, 16, 16), (2, 3, 64, 64))
    """

    config_class = VisualTokenizerConfig
    config: VisualTokenizerConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True

    def __init__(self, config: VisualTokenizerConfig, **unknown):
        for name, value in unknown.items():  # from_pretrained passes on what the configuration did not take
            raise ValueError(
                f"{type(config).__name__} has no field {name!r} (value {value!r}); "
                f"its fields are {', '.join(config.public_fields())}"
            )
        super().__init__(config)
        quantizer = build_quantizer(config)
        self.encoder: Encoder = build_encoder(
            config.network
        )  # first: model.dtype is the dtype of the first weight
        self.quantizer: Quantizer = quantizer
        self.decoder: Decoder = build_decoder(config.network, quantizer.quantized_dim)
        try:
            grid = self.encoder.grid(config.image_size, config.image_size)
        except ValueError as error:
            raise ValueError(f"image_size {config.image_size} does not fit the network: {error}") from error
        try:
            quantizer.check_grid(grid)
        except ValueError as error:
            raise ValueError(f"image_size {config.image_size} does not fit the quantizer: {error}") from error
        kernel_size = self.encoder.projection_kernel_size
        projection = partial(
            {1: nn.Conv1d, 2: nn.Conv2d}[len(grid)], kernel_size=kernel_size, padding=kernel_size // 2
        )
        self.to_latents = projection(self.encoder.channels, self.quantizer.latent_dim)
        self.from_quantized = (
            nn.Identity()
            if takes_quantized(self.decoder)
            else projection(self.quantizer.quantized_dim, self.decoder.channels)
        )
        # Codebooks stay float32 when a checkpoint is loaded in half precision. Each is named by itself: of a
        # module named as a whole, transformers would turn the integer buffers into floats.
        self._keep_in_fp32_modules_strict = {
            re.escape(f"quantizer.{name}")
            for name, state in self.quantizer.state_dict().items()
            if state.is_floating_point()
        }
        self.post_init()
        as_channels_last(self)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Not the inherited one: it would draw every layer and codebook from N(0, 0.02).
        if callable(getattr(module, "reset_parameters", None)):
            module.reset_parameters()

    @property
    def codebook_size(self) -> int:
        """Number of entries of one codebook."""
        return self.quantizer.codebook_size

    @property
    def downsample_factor(self) -> int | None:
        """Pixels of height or width per place of the grid; None for 1-D tokens, which stand for no place."""
        return getattr(self.encoder, "downsample_factor", None)

    @property
    def token_shape(self) -> tuple[int, ...]:
        """Shape of one picture's tokens at `config.image_size`: `(h, w)`, `(K, h, w)`, `(n,)` or `(K, n)`."""
        return self.quantizer.token_shape(self.encoder.grid(self.config.image_size, self.config.image_size))

    def encode_latents(self, pixel_values: Tensor) -> Tensor:
        """The latents of pictures, before quantization.

        Args:
            pixel_values: float `(B, 3, H, W)` in [-1, 1].

        Returns:
            float `(B, latent_dim, *grid)`.

        Raises:
            ValueError: The shape is wrong, or height or width does not fit the network.
        """
        if pixel_values.ndim != 4 or pixel_values.shape[1] != 3:
            raise ValueError(f"Expected pixel_values of shape (B, 3, H, W), got {tuple(pixel_values.shape)}")
        if not pixel_values.is_floating_point():
            raise ValueError(
                f"Expected floating-point pixel_values in [-1, 1], got {pixel_values.dtype}; "
                "use VistokImageProcessor"
            )
        self.encoder.grid(*pixel_values.shape[2:])
        network_pixels = self._normalized(pixel_values.to(self.dtype))
        return self.to_latents(self.encoder(network_pixels.contiguous(memory_format=torch.channels_last)))

    def encode(self, pixel_values: Tensor) -> QuantizerOutput:
        """The tokens of pictures and their vectors, by the evaluation assignment.

        Args:
            pixel_values: float `(B, 3, H, W)` in [-1, 1].

        Returns:
            Vectors float32 `(B, quantized_dim, *grid)` and tokens int64 `(B, *token_shape)`; no losses.

        Raises:
            ValueError: The shape is wrong, the size does not fit the network, or the latents are not finite.
        """
        return self.quantizer.evaluate(self.encode_latents(pixel_values))

    def decode(self, tokens: Tensor, num_codebooks: int | None = None) -> Tensor:
        """The pictures of tokens.

        Args:
            tokens: int `(B, *token_shape)` in `[0, codebook_size)`; the grid may have any size. Of a sequence
                of scales, the first scales alone give a coarser picture.
            num_codebooks: Of several codebooks, decode the first ones only.

        Returns:
            float `(B, 3, H, W)`, about [-1, 1], not clamped.

        Raises:
            ValueError: A token is out of range, or the tokens are not integers or have the wrong rank.
        """
        shape = self.token_shape
        if tokens.ndim != 1 + len(shape):
            raise ValueError(
                f"Expected tokens of rank {1 + len(shape)}, such as (B, {', '.join(map(str, shape))}), "
                f"got {tuple(tokens.shape)}"
            )
        some = {} if num_codebooks is None else {"num_codebooks": num_codebooks}
        if some and self.config.num_codebooks == 1:
            raise ValueError(f"This tokenizer has one codebook; leave num_codebooks={num_codebooks} out")
        return self.decode_quantized(self.quantizer.lookup(tokens, **some))

    def decode_quantized(self, quantized: Tensor) -> Tensor:
        """The pictures of quantized vectors.

        Args:
            quantized: float `(B, quantized_dim, *grid)`.

        Returns:
            float `(B, 3, H, W)`, about [-1, 1], not clamped.
        """
        quantized = quantized.to(self.dtype)
        if quantized.ndim == 4:
            quantized = quantized.contiguous(memory_format=torch.channels_last)
        return self._denormalized(self.decoder(self.from_quantized(quantized)))

    def _normalized(self, pixel_values: Tensor) -> Tensor:
        """Pixel values in [-1, 1] to those that the network was trained on."""
        mean, std = self.config.image_mean, self.config.image_std
        if set(mean) == set(std) == {0.5}:
            return pixel_values
        shift = pixel_values.new_tensor([0.5 - m for m in mean]).view(3, 1, 1)
        return (pixel_values * 0.5 + shift) / pixel_values.new_tensor(std).view(3, 1, 1)

    def _denormalized(self, pixel_values: Tensor) -> Tensor:
        mean, std = self.config.image_mean, self.config.image_std
        if set(mean) == set(std) == {0.5}:
            return pixel_values
        shift = pixel_values.new_tensor([2 * m - 1 for m in mean]).view(3, 1, 1)
        return pixel_values * pixel_values.new_tensor([2 * s for s in std]).view(3, 1, 1) + shift

    def forward(
        self,
        pixel_values: Tensor,
        original_sizes: Tensor | None = None,
        return_dict: bool | None = None,
        mask: Tensor | None = None,
    ) -> TokenizerOutput | tuple:
        """Pictures to tokens and back, in training with the quantizer's losses.

        Args:
            pixel_values: float `(B, 3, H, W)` in [-1, 1].
            original_sizes: What the image processor adds for its own `postprocess`; taken so that
                `model(**processor(images, return_tensors="pt"))` works, and not needed.
            return_dict: False for a plain tuple of the fields; by default as the configuration says.
            mask: bool `(B, *grid)`, False at places of padding, which have no part in the quantizer's losses
                and statistics.

        Returns:
            The reconstruction beside the quantizer's vectors, tokens and losses.

        Raises:
            ValueError: The shape is wrong, or the size does not fit the network.
        """
        masked = {} if mask is None else {"mask": mask}
        out = self.quantizer(self.encode_latents(pixel_values), **masked)
        reconstruction = self.decode_quantized(out.quantized)
        output = TokenizerOutput(out.quantized, out.tokens, out.losses, reconstruction)
        as_tuple = not (self.config.return_dict if return_dict is None else return_dict)
        return output.to_tuple() if as_tuple else output

    def get_image_tokens(self, pixel_values: Tensor) -> Tensor:
        """The tokens of pictures as the flat sequences that autoregressive models read.

        Args:
            pixel_values: float `(B, 3, H, W)` in [-1, 1].

        Returns:
            int64 `(B, L)`, the grid row by row, or `(B, L, K)` with K codebooks, the tokens of one place
            adjacent.

        Raises:
            ValueError: As `encode`, and where the quantizer makes no tokens.
        """
        tokens = self.quantizer.encode(self.encode_latents(pixel_values))
        if self.config.num_codebooks == 1:
            return tokens.flatten(1)
        return tokens.flatten(2).transpose(1, 2)

    def decode_image_tokens(
        self, tokens: Tensor, height: int | None = None, width: int | None = None
    ) -> Tensor:
        """The pictures of flat token sequences.

        Args:
            tokens: int `(B, L)`, or `(B, L, K)` with K codebooks.
            height: Rows of the token grid; by default those of the configured `image_size`.
            width: Columns of the token grid.

        Returns:
            float `(B, 3, H, W)`, about [-1, 1], not clamped.

        Raises:
            ValueError: The sequence does not fill the grid, or `decode` refuses the tokens.
        """
        codebooks = self.config.num_codebooks
        grid = self.encoder.grid(self.config.image_size, self.config.image_size)
        if height is not None or width is not None:
            if len(grid) == 1:
                raise ValueError("A sequence of tokens has no rows and columns: leave height and width out")
            grid = (grid[0] if height is None else height, grid[1] if width is None else width)
        if min(grid) < 1:
            raise ValueError(
                f"height and width of the grid must be at least 1, got {' x '.join(map(str, grid))}"
            )
        shape = self.quantizer.token_shape(grid)
        shape = shape if codebooks == 1 else shape[1:]
        expected = (torch.Size(shape).numel(),) if codebooks == 1 else (torch.Size(shape).numel(), codebooks)
        if tuple(tokens.shape[1:]) != expected:
            raise ValueError(
                f"Expected tokens of shape (B, {', '.join(map(str, expected))}) for a grid of "
                f"{' x '.join(map(str, grid))}, got {tuple(tokens.shape)}; "
                "say height and width of another grid"
            )
        if codebooks > 1:
            tokens = tokens.transpose(1, 2)
        return self.decode(tokens.unflatten(-1, shape))


on_registration(lambda config_class: MODEL_MAPPING.register(config_class, VQModelHF, exist_ok=True))
