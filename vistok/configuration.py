"""Configurations that refuse what they do not understand.

transformers keeps unknown keys as attributes and checks neither types nor ranges of a plain subclass. Here
every field has a type and a range; a bad value, an unknown field or a network of unknown type is a
`ValueError` that names the field and the value, at construction, assignment, load and override.
"""

import functools
import inspect
import math
import os
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Literal

import torch
from huggingface_hub.dataclasses import strict, type_validator, validated_field
from huggingface_hub.errors import StrictDataclassError
from packaging.version import InvalidVersion, Version
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from . import __version__

# What transformers hands to a configuration or sets on it beside its own dataclass fields, and of which type.
_TRANSFORMERS_KEYS: dict[str, Any] = {
    **dict.fromkeys(["attn_implementation", "_attn_implementation"], str | dict | None),
    **dict.fromkeys(["_attn_implementation_internal", "_experts_implementation_internal"], str | dict | None),
    **dict.fromkeys(["experts_implementation", "_experts_implementation"], str | dict | None),
    **dict.fromkeys(["output_attentions", "_output_attentions"], bool | None),
    **dict.fromkeys(["tie_word_embeddings", "_from_auto"], bool | None),
    **dict.fromkeys(["name_or_path", "_name_or_path"], str | os.PathLike | None),
    **dict.fromkeys(["transformers_weights", "_commit_hash", "_from_pipeline"], str | None),
    "torch_dtype": str | torch.dtype | None,
    "auto_map": dict | None,
}


def number(
    default: float,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
):
    """A dataclass field for a finite number in a range.

    Args:
        default: Its default value.
        at_least: The smallest value allowed.
        above: A bound that the value must exceed.
        at_most: The largest value allowed.
        below: A bound that the value must stay under.
    """
    limits = [
        f"{text} {bound}"
        for text, bound in (("at least", at_least), ("above", above), ("at most", at_most), ("below", below))
        if bound is not None
    ]

    def check(value: float) -> None:
        # Not math.isfinite: it overflows on large integers.
        inside = (
            -math.inf < value < math.inf
            and (at_least is None or value >= at_least)
            and (above is None or value > above)
            and (at_most is None or value <= at_most)
            and (below is None or value < below)
        )
        if not inside:
            raise ValueError(f"expected a number {' and '.join(limits) or 'that is finite'}, got {value!r}")

    return validated_field(check, default=default)


def numbers(default: tuple[int, ...], *, at_least: int, below: int, empty: bool = False):
    """A dataclass field for a list of integers in a range.

    Args:
        default: Its default value.
        at_least: The smallest value allowed.
        below: A bound that each value must stay under.
        empty: Whether there may be none.
    """

    def check(values: list[int] | tuple[int, ...]) -> None:
        wrong = [
            v for v in values if not isinstance(v, int) or isinstance(v, bool) or not at_least <= v < below
        ]
        if wrong or not (values or empty):
            some = "" if empty else "one or more "
            raise ValueError(
                f"expected {some}integers at least {at_least} and below {below}, got {list(values)}"
            )

    return validated_field(check, default=default)


def as_value_error(method: Callable) -> Callable:
    """A method of a strict dataclass whose errors are one-line `ValueError`s."""

    @functools.wraps(method)
    def wrapper(self, *args, **kwargs):
        try:
            return method(self, *args, **kwargs)
        except StrictDataclassError as error:
            raise ValueError(f"{type(self).__name__}: {' '.join(str(error).split())}") from error

    return wrapper


def _check_dtype(value: str | torch.dtype | None) -> None:
    dtype = getattr(torch, value, None) if isinstance(value, str) else value
    if value is not None and dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise ValueError(f"expected float16, bfloat16, float32 or float64, got {value!r}")


def _check_labels(value: dict | None) -> None:
    if value is not None and not all(str(key).isdecimal() for key in value):
        raise ValueError(f"expected whole numbers as keys, got {list(value)}")


def _check_channels(values: list[float] | tuple[float, ...]) -> None:
    if len(values) != 3 or not all(isinstance(v, float | int) and math.isfinite(v) for v in values):
        raise ValueError(f"expected three finite numbers, for red, green and blue, got {list(values)}")


def _check_positive(values: list[float] | tuple[float, ...]) -> None:
    _check_channels(values)
    if min(values) <= 0:
        raise ValueError(f"expected three numbers above 0, for red, green and blue, got {list(values)}")


class _StrictConfig(PreTrainedConfig):
    """What tokenizer and network configurations share: strict fields."""

    # transformers declares these too, but their types are checked only where the annotations are no strings.
    transformers_version: str | None = None
    architectures: list[str] | None = None
    output_hidden_states: bool | None = False
    return_dict: bool | None = True
    dtype: str | torch.dtype | None = validated_field(_check_dtype, default=None)
    chunk_size_feed_forward: int = 0
    is_encoder_decoder: bool = False
    id2label: dict[int, str] | dict[str, str] | None = validated_field(_check_labels, default=None)
    label2id: dict[str, int] | dict[str, str] | None = None
    problem_type: (
        Literal["regression", "single_label_classification", "multi_label_classification"] | None
    ) = None

    def __init_subclass__(cls, *args: Any, **kwargs: Any):
        annotations = inspect.get_annotations(cls)
        cls.__annotations__ = {k: float | int if v is float else v for k, v in annotations.items()}
        super().__init_subclass__(*args, **kwargs)  # makes it a keyword-only dataclass
        cls.__eq__ = _StrictConfig.__eq__  # not the dataclass's own, by which [8, 5] is not (8, 5)
        strict(cls, accept_kwargs=True)
        cls.__init__ = as_value_error(cls.__init__)
        cls.__setattr__ = as_value_error(cls.__setattr__)

    def __post_init__(self, **kwargs: Any):
        written_by = kwargs.pop("vistok_version", None)
        model_type = kwargs.pop("model_type", self.model_type)
        if model_type != self.model_type:
            raise ValueError(f"{type(self).__name__} has model_type {self.model_type!r}, got {model_type!r}")
        for name in sorted(kwargs.keys() - _TRANSFORMERS_KEYS.keys()):
            message = _no_field(type(self), name, kwargs[name])
            if _is_newer(written_by):
                message += f"; {_needs(written_by)}"
            raise ValueError(message)
        for name, value in kwargs.items():
            _check_transformers_key(type(self), name, value)
        super().__post_init__(**kwargs)
        self.__dict__["_post_init_done"] = True  # transformers sets it by itself, but not yet in 5.17

    def __setattr__(self, name: str, value: Any):
        if not self.__dict__.get("_post_init_done", False):
            super().__setattr__(name, value)
            return
        if name not in self.__dataclass_fields__:
            if name not in _TRANSFORMERS_KEYS:
                raise ValueError(_no_field(type(self), name, value))
            _check_transformers_key(type(self), name, value)
            super().__setattr__(name, value)
            return
        before = self.__dict__.get(name)
        super().__setattr__(name, value)
        try:
            self.validate()
        except StrictDataclassError:
            self.__dict__[name] = before
            raise

    def __eq__(self, other: Any) -> bool:
        """Whether the two make the same file: lists and tuples are the same there, and so they are here."""
        return type(self) is type(other) and self.to_json_string() == other.to_json_string()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any):
        """Builds the configuration from the dictionary of a file; `kwargs` override its fields.

        Raises:
            ValueError: A value is out of range or a field is unknown.
        """
        if not kwargs.get("return_unused_kwargs", False):
            known = cls.__dataclass_fields__.keys() | _TRANSFORMERS_KEYS.keys() | {"return_unused_kwargs"}
            for name in sorted(kwargs.keys() - known):
                raise ValueError(_no_field(cls, name, kwargs[name]))
        return super().from_dict(config_dict, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """All fields as a dictionary."""
        values = super().to_dict()
        values.pop("_post_init_done", None)
        return values

    @classmethod
    def public_fields(cls) -> list[str]:
        """The names of vistok's fields, without those that transformers adds to every configuration."""
        return [f.name for f in fields(cls) if f.name not in PreTrainedConfig.__dataclass_fields__]

    @classmethod
    def check(cls, **values: Any) -> None:
        """Checks values of single fields, so that a module used without its configuration refuses the same.

        Raises:
            ValueError: A value has the wrong type or is out of range; the message names field and value.
        """
        for name, value in values.items():
            for validator in cls.__validators__[name]:
                try:
                    validator(value)
                except (TypeError, ValueError) as error:
                    raise ValueError(f"{cls.__name__}: bad value for {name!r}: {error}") from error


def _no_field(config_class: type[_StrictConfig], name: str, value: Any) -> str:
    fields_text = ", ".join(config_class.public_fields())
    return f"{config_class.__name__} has no field {name!r} (value {value!r}); its fields are {fields_text}"


def _check_transformers_key(config_class: type[_StrictConfig], name: str, value: Any) -> None:
    try:
        type_validator(name, value, _TRANSFORMERS_KEYS[name])
        if name == "torch_dtype":
            _check_dtype(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{config_class.__name__}: bad value for {name!r}: {error}") from error


def _needs(version: str) -> str:
    return f"it needs vistok >= {version}, this is {__version__}: pip install --upgrade vistok"


def _is_newer(version: str | None) -> bool:
    try:
        return version is not None and Version(str(version)) > Version(__version__)
    except InvalidVersion:
        return False


class NetworkConfig(_StrictConfig):
    """The settings of an encoder and its decoder.

    A subclass names its `model_type` and its fields: the keyword arguments of its encoder and decoder.
    """

    def __init_subclass__(cls, *args: Any, **kwargs: Any):
        super().__init_subclass__(*args, **kwargs)
        if "model_type" in cls.__dict__:
            _register(cls)

    def own_values(self) -> dict[str, Any]:
        """Its own fields and their values."""
        return {name: getattr(self, name) for name in self.public_fields()}


class UnknownModelTypeError(ValueError):
    """A `config.json` does not say of which kind of model it is."""


class VisualTokenizerConfig(_StrictConfig):
    """The settings of a visual tokenizer; a quantizer's subclass adds the arguments of its constructor.

    Args:
        image_size: Height and width in pixels of the square pictures that the tokenizer is trained on.
        num_codebooks: How many tokens describe one place of the grid.
        codebook_layout: Several codebooks either share the channels out (`"product"`) or each quantize what
            the ones before left over (`"residual"`).
        shared_codebook: Whether several codebooks are one and the same table.
        quantizer_dropout: Share of the pictures in training that keep only their first residual stages, a
            random number of them, so that the first stages alone decode well too.
        image_mean: What the network's own pixel values have subtracted, of pixel values in [0, 1], one for
            each of red, green and blue; the default and that of `image_std` are pixel values in [-1, 1]. The
            model takes and gives [-1, 1] all the same.
        image_std: What they are divided by.
        network: The network's configuration, or a dictionary of its fields with its `model_type`.

    Raises:
        ValueError: A field is unknown, or a value has the wrong type or is out of range.

    Example:
        >>> from vistok import FSQConfig, SimpleCNNConfig
        >>> config = FSQConfig(levels=[8, 5, 5, 5], network=SimpleCNNConfig(hidden_channels=32))
        >>> config.network.hidden_channels
        32
    """

    image_size: int = number(256, at_least=1, below=2**16)
    num_codebooks: int = number(1, at_least=1, below=2**12)
    codebook_layout: Literal["product", "residual"] = "product"
    shared_codebook: bool = False
    quantizer_dropout: float = number(0.0, at_least=0, at_most=1)
    image_mean: list[float | int] | tuple[float | int, ...] = validated_field(
        _check_channels, default=(0.5, 0.5, 0.5)
    )
    image_std: list[float | int] | tuple[float | int, ...] = validated_field(
        _check_positive, default=(0.5, 0.5, 0.5)
    )
    network: dict | PreTrainedConfig | None = None

    def __init_subclass__(cls, *args: Any, **kwargs: Any):
        super().__init_subclass__(*args, **kwargs)
        if "model_type" in cls.__dict__:
            _register(cls)
            _known.append(cls)
            for callback in _callbacks:
                callback(cls)

    def __setattr__(self, name: str, value: Any):
        super().__setattr__(name, _as_network(value) if name == "network" else value)

    def validate_quantizer_dropout(self):
        """Only residual stages can be left out."""
        if self.quantizer_dropout and (self.codebook_layout != "residual" or self.num_codebooks == 1):
            raise ValueError(
                f"quantizer_dropout {self.quantizer_dropout} needs codebook_layout 'residual' and several "
                f"codebooks, got {self.codebook_layout!r} and num_codebooks {self.num_codebooks}"
            )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs: Any):
        """Loads a configuration from a folder or the Hub; on the base class, whichever the file names."""
        name = os.fspath(pretrained_model_name_or_path)
        if (name.startswith((".", "/", "~")) or name.count("/") > 1) and not os.path.exists(name):
            raise ValueError(f"There is no folder {name!r} to load a tokenizer from")
        load = AutoConfig if cls is VisualTokenizerConfig else super()
        try:
            loaded = load.from_pretrained(pretrained_model_name_or_path, **kwargs)
        except (TypeError, AttributeError, KeyError) as error:  # transformers takes a sound file for granted
            raise ValueError(
                f"The config.json of {pretrained_model_name_or_path} is damaged: {error}"
            ) from error
        except ValueError as error:
            if "Should have a `model_type` key" in str(error):
                raise UnknownModelTypeError(
                    f"The config.json of {pretrained_model_name_or_path} has no model_type: it is no folder "
                    "of vistok; if it is a published tokenizer of another project, see vistok convert --list"
                ) from error
            unknown = re.search("model type `(.*?)` but Transformers does not recognize", str(error))
            if unknown is None:
                raise
            raise ValueError(  # transformers would advise to upgrade transformers
                f"{pretrained_model_name_or_path} has unknown model_type {unknown[1]!r}; import the package "
                "that defines it, or pip install --upgrade vistok"
            ) from error
        config = loaded[0] if isinstance(loaded, tuple) else loaded
        if not isinstance(config, cls):
            raise ValueError(
                f"{pretrained_model_name_or_path} holds no visual tokenizer: "
                f"its model_type is {config.model_type!r}"
            )
        return loaded

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any):
        """As for every configuration; a file of a newer version says so for its network's fields too."""
        written_by = config_dict.get("vistok_version")
        try:
            return super().from_dict(config_dict, **kwargs)
        except ValueError as error:
            if not _is_newer(written_by) or "needs vistok" in str(error):
                raise
            raise ValueError(f"{error}; {_needs(written_by)}") from error

    @classmethod
    def own_fields(cls) -> list[str]:
        """The names of the quantizer's own fields: the keyword arguments of its constructor."""
        return [
            name for name in cls.public_fields() if name not in VisualTokenizerConfig.__dataclass_fields__
        ]

    def own_values(self) -> dict[str, Any]:
        """The quantizer's own fields and their values."""
        return {name: getattr(self, name) for name in self.own_fields()}

    def to_dict(self) -> dict[str, Any]:
        """All fields as a dictionary; the network as its own fields and its `model_type`."""
        return self._with_network(super().to_dict())

    def to_diff_dict(self) -> dict[str, Any]:
        """What a file holds: `to_dict` without what transformers adds to every configuration by default."""
        return self._with_network(super().to_diff_dict())

    def _with_network(self, values: dict[str, Any]) -> dict[str, Any]:
        network = {"model_type": self.network.model_type, **self.network.own_values()}
        return {**values, "network": network, "vistok_version": __version__}


def _register(config_class: type[_StrictConfig]) -> None:
    # One of the same module is a notebook cell run again; AutoConfig would let any other take the name too.
    known = CONFIG_MAPPING._extra_content.get(config_class.model_type)
    if known is not None and known.__module__ != config_class.__module__:
        names = [f"{c.__module__}.{c.__qualname__}" for c in (config_class, known)]
        raise ValueError(f"model_type {config_class.model_type!r} of {names[0]} is taken by {names[1]}")
    AutoConfig.register(config_class.model_type, config_class, exist_ok=known is not None)


def _as_network(value: Any) -> NetworkConfig:
    if isinstance(value, NetworkConfig):
        return value
    if value is None:
        value = {"model_type": "vistok_simple_cnn"}
    if not isinstance(value, dict):
        raise ValueError(
            f"network must be a network's configuration or a dictionary of its fields, got {value!r}"
        )
    model_type = value.get("model_type")
    if not isinstance(model_type, str):
        raise ValueError(f"network needs a model_type such as 'vistok_simple_cnn', got {value!r}")
    if not all(isinstance(name, str) for name in value):
        raise ValueError(f"network needs names as keys, got {value!r}")
    try:
        network = AutoConfig.for_model(**value)
    except ValueError as error:
        if "Unrecognized model identifier" not in str(error):
            raise
        raise ValueError(
            f"network has unknown model_type {model_type!r}; import the package that defines it"
        ) from error
    if not isinstance(network, NetworkConfig):
        raise ValueError(
            f"network has model_type {model_type!r}, which is no vistok network ({type(network).__name__})"
        )
    return network


_known: list[type[VisualTokenizerConfig]] = []
_callbacks: list[Callable[[type[VisualTokenizerConfig]], None]] = []


def on_registration(callback: Callable[[type[VisualTokenizerConfig]], None]) -> None:
    """Calls `callback(config_class)` for each tokenizer configuration class, known now or to come.

    Higher layers register what belongs to a configuration (its model, its image processor) without being
    imported by this one.
    """
    _callbacks.append(callback)
    for config_class in _known:
        callback(config_class)
