"""What checkpoints hold beside tensors that is harmless, and what takes its place.

Neither omegaconf nor lightning nor numpy is asked for: classes of ours that keep nothing stand for theirs.
"""

from typing import Any


class Ignored:
    """Stands for an object that weights do not need: it takes whatever it is made of and keeps nothing."""

    def __new__(cls, *_: Any) -> "Ignored":
        """Makes one of any arguments."""
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Forgets the state."""


class IgnoredDict:
    """Stands for a class of dictionaries, whose items the unpickler will only put into a plain one."""

    def __new__(cls, *_: Any) -> dict:
        """Makes a plain dictionary."""
        return {}


class Namespace:
    """Stands for `argparse.Namespace`: the arguments of a training run."""

    def __setstate__(self, state: Any) -> None:
        """Keeps the arguments."""
        self.arguments = state


_OMEGACONF = (
    "base.ContainerMetadata", "base.Metadata", "dictconfig.DictConfig", "listconfig.ListConfig",
    "nodes.AnyNode", "nodes.BooleanNode", "nodes.FloatNode", "nodes.IntegerNode", "nodes.StringNode",
)  # fmt: skip
_BUILTINS = (
    "bool",
    "dict",
    "float",
    "int",
    "list",
    "object",
    "str",
    "tuple",
)  # as types, in omegaconf's metadata
_NUMPY = ("dtype", "ndarray") + tuple(
    f"{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")
)
_ATTRIBUTE_DICTS = (
    "pytorch_lightning.utilities.parsing", "lightning.pytorch.utilities.parsing",
    "lightning_fabric.utilities.data", "lightning.fabric.utilities.data",
)  # fmt: skip
ALLOWED = [
    (Namespace, "argparse.Namespace"),
    (IgnoredDict, "collections.defaultdict"),
    *((IgnoredDict, f"{module}.AttributeDict") for module in _ATTRIBUTE_DICTS),
    *((Ignored, f"omegaconf.{name}") for name in _OMEGACONF),
    *((Ignored, f"builtins.{name}") for name in _BUILTINS),
    *((Ignored, f"numpy.{name}") for name in _NUMPY),
    (Ignored, "typing.Any"),
    # Lightning before 1.5 had the class itself as the key of what a callback keeps.
    (Ignored, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
]
