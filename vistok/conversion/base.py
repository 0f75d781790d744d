"""What a family of published checkpoints says of itself, and how weights become those of a vistok model."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..configuration import VisualTokenizerConfig
from ..modeling import VQModelHF


@dataclass(frozen=True)
class Source:
    """A checkpoint, read.

    Attributes:
        name: The file or Hub id, for messages.
        groups: The dictionaries of tensors in the file by their name there (`"model"`, `"state_dict"`);
            that of the file itself is `""`.
        settings: What the configuration file beside it holds; empty without one.
        others: What else the file holds: `"optimizer"`, `"steps"`.
    """

    name: str
    groups: dict[str, dict[str, Tensor]]
    settings: dict[str, Any] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    def weights(self, *groups: str) -> dict[str, Tensor]:
        """The tensors of the first of these groups that the file has, without what wrappers put before names.

        Raises:
            ValueError: It has none of them, or a tensor has no elements.
        """
        for group in groups:
            if group in self.groups:
                return _unwrapped(self.groups[group])
        wanted = " or ".join(repr(group) if group else "the file itself" for group in groups)
        found = ", ".join([*map(repr, self.groups), *self.others]) or "nothing"
        raise ValueError(
            f"{self.name} holds no weights under {wanted}, only {found}; is it of another family?"
        )


_WRAPPERS = ("module.", "_orig_mod.", "model.", "vq_model.")


def _unwrapped(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for name, weight in weights.items():
        if not weight.numel():  # it costs a file nothing to claim any number of channels beside none
            raise ValueError(f"{name} of shape {tuple(weight.shape)} has no elements")
    for wrapper in _WRAPPERS:
        bare = [name.removeprefix(wrapper) for name in weights]
        wrapped = sum(name.startswith(wrapper) for name in weights)
        if wrapped > len(weights) / 2 and len(set(bare)) == len(weights):
            return _unwrapped(dict(zip(bare, weights.values(), strict=True)))
    return dict(weights)


@dataclass(frozen=True)
class Converted:
    """What a family makes of a checkpoint.

    Attributes:
        config: Of the vistok model.
        weights: Under the names of the vistok model.
        dropped: Names in the source of what a tokenizer does not need: losses, discriminators, buffers.
        left_over: Names in the source that the family does not know.
    """

    config: VisualTokenizerConfig
    weights: dict[str, Tensor]
    dropped: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)

    def model(self, name: str) -> VQModelHF:
        """The model, with these weights in float32.

        Args:
            name: Of the source, for messages.

        Raises:
            ValueError: A weight is missing, left over, of another shape or not finite; all such are listed.
        """
        with torch.device("meta"):
            wanted = VQModelHF(self.config).state_dict()
        shapes = [
            f"{key} {tuple(weight.shape)} instead of {tuple(wanted[key].shape)}"
            for key, weight in self.weights.items()
            if key in wanted and weight.shape != wanted[key].shape
        ]
        kinds = [
            f"{key} {weight.dtype}"
            for key, weight in self.weights.items()
            if key in wanted and wanted[key].is_floating_point() and not weight.is_floating_point()
        ]
        problems = {
            "missing": wanted.keys() - self.weights.keys(),
            "left over": [*self.left_over, *(self.weights.keys() - wanted.keys())],
            "of another shape": shapes,
            "of another kind": kinds,
            "not finite": [key for key, weight in self.weights.items() if not weight.isfinite().all()],
        }
        if any(problems.values()):
            listed = "; ".join(
                f"{kind}: {', '.join(sorted(keys))}" for kind, keys in problems.items() if keys
            )
            raise ValueError(f"The weights of {name} do not fit this family: {listed}")
        model = VQModelHF(self.config)  # anew: what follows from the settings is not among the weights
        model.load_state_dict(self.weights)
        return model.eval()


@dataclass(frozen=True)
class Published:
    """A checkpoint that its authors published.

    Attributes:
        source: What to give `vistok convert`: a Hub id, with the file where there is one, or a file's name.
        what: What it is, in a few words.
        figures: What its authors report, and where.
        options: Further flags that it needs.
    """

    source: str
    what: str
    figures: str = ""
    options: str = ""


@dataclass(frozen=True)
class Family:
    """Checkpoints of one layout.

    Attributes:
        name: The word after `vistok convert`.
        project: Whose layout it is.
        convert: Makes the configuration and the renamed weights of a source; takes `options` as keywords.
        published: The checkpoints known to be of this family.
        options: The names of its keyword arguments beside `image_size`, which every family takes: `levels`
            and `scales` (lists of integers), `weights` (`"raw"` or `"ema"`).
        needs_settings: Whether the project keeps settings in a file that says what weights do not: several
            beside a checkpoint are then refused until it is clear which is meant.
        recognises: Whether the `config.json` of a folder of safetensors is of this family: `from_pretrained`
            then loads the folder as it is.
    """

    name: str
    project: str
    convert: Callable[..., Converted]
    published: tuple[Published, ...] = ()
    options: tuple[str, ...] = ()
    needs_settings: bool = True
    recognises: Callable[[dict[str, Any]], bool] | None = None


_MOST_MATCHES = 2**24  # of a name with a pattern; Open-MAGVIT2, without its losses, needs 2**14
MOST_LAYERS = 64  # of one list in a network
MOST_LEVELS = 16  # of halved resolution: pictures are smaller than 2**16 pixels


@dataclass(frozen=True)
class Renamed:
    """Weights under vistok's names, and the source's names of the others."""

    weights: dict[str, Tensor]
    dropped: list[str]
    left_over: list[str]


def rename(weights: Mapping[str, Tensor], rules: Mapping[str, str], drop: Iterable[str] = ()) -> Renamed:
    r"""Renames weights by regular expressions.

    Args:
        weights: Under the source's names.
        rules: Pattern of a whole name -> the new name, with `\1` for groups. The first that fits counts.
        drop: Patterns of whole names to drop.

    Raises:
        ValueError: There are so many of both that no tokenizer can be meant.
    """
    if len(weights) * len(rules) > _MOST_MATCHES:
        raise ValueError(f"{len(weights):,} weights of {len(rules):,} kinds are more than any tokenizer has")
    compiled = [(re.compile(pattern), new) for pattern, new in rules.items()]
    dropping = [re.compile(pattern) for pattern in drop]
    renamed, dropped, left_over = {}, [], []
    for name, weight in weights.items():
        found = next(((match, new) for pattern, new in compiled if (match := pattern.fullmatch(name))), None)
        if found is not None:
            renamed[found[0].expand(found[1])] = weight
        elif any(pattern.fullmatch(name) for pattern in dropping):
            dropped.append(name)
        else:
            left_over.append(name)
    return Renamed(renamed, dropped, left_over)


def need(weights: Mapping[str, Tensor], name: str, ndim: int) -> torch.Size:
    """The shape of a weight that says how large the model is.

    Raises:
        ValueError: It is not there, or has another rank: the checkpoint is of another family.
    """
    if name not in weights:
        raise ValueError(f"It has no weight {name!r}: is it of another family?")
    if weights[name].ndim != ndim:
        raise ValueError(
            f"{name} has shape {tuple(weights[name].shape)}, not {ndim} dimensions: another family?"
        )
    return weights[name].shape


def numbered(weights: Mapping[str, Tensor], pattern: str, step: int = 1, most: int = MOST_LAYERS) -> int:
    """How many things the names number, from 0 on.

    Args:
        weights: Under the source's names.
        pattern: Of the beginning of a name, with the number as its one group.
        step: From one number to the next; what has no weights between has numbers too.
        most: How many there can be. A name costs a file nothing, and what it numbers is gone through.

    Raises:
        ValueError: A number is left out, or there are more.
    """
    found = {int(match[1]) for name in weights if (match := re.match(pattern, name))}
    name = pattern.replace(r"(\d+)", "N").replace("\\", "").rstrip(".")
    if len(found) > most:
        raise ValueError(f"It has {len(found):,} of {name}, more than any tokenizer")
    for place, number in enumerate(sorted(found)):
        if number != place * step:
            raise ValueError(f"Of {name} it has {number} but not {place * step}")
    return len(found)


def check_given(options: Mapping[str, Any]) -> None:
    """Raises `ValueError` where an option is 0 or empty, which families would take for not given."""
    for name, value in options.items():
        if value is not None and not value:
            raise ValueError(f"Expected a value of {name}, or none at all; got {value!r}")


class OptionError(ValueError):
    """The file may be of the family, but not with this option."""


def target_of(settings: Mapping[str, Any]) -> str:
    """The class that a project's settings name for the model, or nothing."""
    model = settings.get("model")
    if not isinstance(model, Mapping):
        return ""
    named = model.get("class_path") or model.get("target")
    return named if isinstance(named, str) else ""


def setting(settings: Mapping[str, Any], *names: str, default: Any = None) -> Any:
    """The value of the first of these keys, at whatever depth of a configuration file; else the default."""
    for name in names:
        for key, value in _flat(settings):
            if key == name:
                return value
    return default


def _flat(settings: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(settings, Mapping):
        yield from settings.items()
        for value in settings.values():
            yield from _flat(value)
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from _flat(value)
