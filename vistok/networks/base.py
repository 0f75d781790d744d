"""What a network offers: an encoder from pictures to features and a decoder back, without quantizers."""

import inspect
from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from ..configuration import NetworkConfig

ENCODERS: dict[type[NetworkConfig], type["Encoder"]] = {}
DECODERS: dict[type[NetworkConfig], type["Decoder"]] = {}


class Encoder(nn.Module, ABC):
    """Turns pictures into features.

    Naming `config_class` registers it. The constructor takes the configuration's fields, or those that it
    needs, as keyword arguments.

    Attributes:
        channels: Channels of the features.
        downsample_factor: Pixels of height or width per place of the grid.
        projection_kernel_size: Of the convolutions from the features to the latents, and from the quantized
            vectors to what the decoder takes.
    """

    config_class: ClassVar[type[NetworkConfig]]
    channels: int
    downsample_factor: int
    projection_kernel_size: int = 1

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "config_class" in cls.__dict__:
            ENCODERS[cls.config_class] = cls

    @abstractmethod
    def forward(self, pixel_values: Tensor) -> Tensor:
        """Float `(B, 3, H, W)` in [-1, 1] -> float `(B, channels, *grid)`."""

    def grid(self, height: int, width: int) -> tuple[int, ...]:
        """The grid of a picture of `height` x `width` pixels.

        Raises:
            ValueError: The network does not take that size; the message says the nearest sizes that fit.
        """
        factor = self.downsample_factor
        if height < 1 or width < 1 or height % factor or width % factor:
            fits = " x ".join(_nearest_multiples(size, factor) for size in (height, width))
            raise ValueError(
                f"Height and width must be multiples of {factor}, got {height} x {width}; "
                f"the nearest that fit: {fits}"
            )
        return height // factor, width // factor


class Decoder(nn.Module, ABC):
    """Turns features into pictures.

    Naming `config_class` registers it. A decoder whose first layer takes any number of channels has a
    constructor argument `in_channels`: it is given the quantized vectors themselves, without a projection
    between.

    Attributes:
        channels: Channels of the features it takes.
        downsample_factor: Pixels of height or width per place of the grid.
        last_layer: The weight of its last layer, where the adaptive weight of an adversarial loss is
            measured.
    """

    config_class: ClassVar[type[NetworkConfig]]
    channels: int
    downsample_factor: int

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "config_class" in cls.__dict__:
            DECODERS[cls.config_class] = cls

    @property
    @abstractmethod
    def last_layer(self) -> nn.Parameter:
        """The weight of the last layer."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Float `(B, channels, *grid)` -> float `(B, 3, H, W)`, about [-1, 1]."""


def build_encoder(config: NetworkConfig) -> Encoder:
    """The encoder that a network's configuration describes."""
    return _build(ENCODERS, config)


def build_decoder(config: NetworkConfig, quantized_dim: int) -> Decoder:
    """The decoder that a network's configuration describes.

    Args:
        config: The network's configuration.
        quantized_dim: Channels of the quantized vectors, for a decoder that takes them without a projection.
    """
    return _build(DECODERS, config, in_channels=quantized_dim)


def takes_quantized(decoder: Decoder) -> bool:
    """Whether a decoder was built on the channels of the quantized vectors and needs no projection."""
    return "in_channels" in inspect.signature(type(decoder).__init__).parameters


def _build(registry: dict, config: NetworkConfig, **extra: int):
    part = registry.get(type(config))
    if part is None:
        raise ValueError(
            f"No network is registered for {type(config).__name__}; import the package that defines it. "
            f"Known: {', '.join(sorted(known.__name__ for known in registry))}"
        )
    wanted = inspect.signature(part.__init__).parameters
    return part(**{name: value for name, value in {**config.own_values(), **extra}.items() if name in wanted})


def _nearest_multiples(size: int, factor: int) -> str:
    below, above = max(factor, size // factor * factor), -(-max(size, 1) // factor) * factor
    return str(below) if below == above else f"{below} or {above}"
