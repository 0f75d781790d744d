"""Checkpoints that hold weights and moving averages of them: which are meant."""

from collections.abc import Mapping

from torch import Tensor

from .base import OptionError, Source


def chosen_weights(source: Source, weights: str, frozen: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The weights of a checkpoint of Lightning.

    Args:
        source: The checkpoint.
        weights: `"raw"`, or `"ema"` for their moving averages.
        frozen: Names of weights that training does not move, and that need no average.

    Raises:
        ValueError: There are none, or `weights` is neither.
    """
    check_choice(weights)
    found = source.weights("state_dict", "")
    return averaged(found, frozen) if weights == "ema" else found


def check_choice(weights: str) -> None:
    """Raises `OptionError` where `weights` is neither `"raw"` nor `"ema"`."""
    if weights not in ("raw", "ema"):
        raise OptionError(f"Expected weights 'raw' or 'ema', got {weights!r}")


def averaged(weights: Mapping[str, Tensor], frozen: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The weights with the values of their moving averages, without those of losses.

    Lightning's checkpoints of latent-diffusion and its heirs keep the averages as buffers, named like the
    parameter without its dots.

    Args:
        weights: Under the source's names.
        frozen: Names of weights that training does not move, and that need no average.

    Raises:
        ValueError: There are no averages, or a weight has none, or one belongs to no weight.
    """
    prefix = "model_ema."
    averages = {
        name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)
    }
    averages = {name: value for name, value in averages.items() if name not in ("decay", "num_updates")}
    if not averages:
        raise OptionError(f"It has no averaged weights ({prefix}*): take --weights raw")
    plain = {name: value for name, value in weights.items() if not name.startswith(prefix)}
    keys = {name: name.replace(".", "") for name in plain}
    lost = [name for name in plain if not name.startswith("loss.") and keys[name] not in averages]
    lost = [name for name in lost if name not in frozen]
    if lost:
        raise OptionError(f"Some weights have no average ({prefix}*): {', '.join(lost)}; take --weights raw")
    foreign = sorted(prefix + key for key in averages.keys() - set(keys.values()))
    if foreign:
        raise OptionError(f"Some averages are of no weight: {', '.join(foreign)}")
    return {name: averages.get(keys[name], value) for name, value in plain.items()}
