"""What LPIPS (arXiv:1801.03924) is made of: its trunks, and where the weights of trunks and heads lie."""

import functools
import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..conversion.reading import read
from ..conversion.sources import locate
from ..messages import one_line


@dataclass(frozen=True)
class Conv:
    """A convolution of a trunk; a ReLU follows it."""

    number: int  # in torchvision's `features`
    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1


@dataclass(frozen=True)
class Trunk:
    """A classifier up to the last of its features that count; each stage ends with one."""

    stages: tuple[tuple[Conv, ...], ...]
    pool: int  # window of the poolings, of stride 2
    pooled: tuple[int, ...]  # the stages that begin with one
    smallest: int  # pictures, in pixels, of which a place is left at the end
    address: str  # of the weights that torchvision publishes
    default: str | None  # the same on the Hub


_ADDRESS = "https://download.pytorch.org/models/"
TRUNKS = {
    # Very Deep Convolutional Networks for Large-Scale Image Recognition. arXiv:1409.1556.
    "vgg": Trunk(
        stages=(
            (Conv(0, 64), Conv(2, 64)),
            (Conv(5, 128), Conv(7, 128)),
            (Conv(10, 256), Conv(12, 256), Conv(14, 256)),
            (Conv(17, 512), Conv(19, 512), Conv(21, 512)),
            (Conv(24, 512), Conv(26, 512), Conv(28, 512)),
        ),
        pool=2,
        pooled=(1, 2, 3, 4),
        smallest=16,
        address=_ADDRESS + "vgg16-397923af.pth",
        default="timm/vgg16.tv_in1k",
    ),
    # One weird trick for parallelizing convolutional neural networks. arXiv:1404.5997.
    "alex": Trunk(
        stages=(
            (Conv(0, 64, kernel=11, stride=4, padding=2),),
            (Conv(3, 192, kernel=5, padding=2),),
            (Conv(6, 384),),
            (Conv(8, 256),),
            (Conv(10, 256),),
        ),
        pool=3,
        pooled=(1, 2),
        smallest=31,
        address=_ADDRESS + "alexnet-owt-7be5be79.pth",
        default=None,  # the Hub has copies by single people only
    ),
}


def trunk_shapes(network: Literal["vgg", "alex"]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights that a trunk reads: torchvision's `features.N.weight` and `.bias`."""
    shapes: dict[str, tuple[int, ...]] = {}
    channels = 3
    for conv in (conv for stage in trunk_named(network).stages for conv in stage):
        shapes[f"features.{conv.number}.weight"] = (conv.channels, channels, conv.kernel, conv.kernel)
        shapes[f"features.{conv.number}.bias"] = (conv.channels,)
        channels = conv.channels
    return shapes


def trunk_named(network: str) -> Trunk:
    """The trunk of that name, or a `ValueError` that lists them."""
    if network not in TRUNKS:
        raise ValueError(f"network must be one of {', '.join(map(repr, TRUNKS))}, got {network!r}")
    return TRUNKS[network]


def read_trunk(network: str, source: str | None) -> tuple[dict[str, Tensor], str]:
    """The weights in float32, and the SHA-256 of their file."""
    trunk = trunk_named(network)
    remedy = f"give trunk_weights a local safetensors file, a Hub id, or the file of {trunk.address}"
    source = trunk.default if source is None else str(source)
    if source is None:
        raise ValueError(f"The trunk of LPIPS by {network!r} has no default weights: {remedy}")
    try:
        path = Path(source).expanduser()
        path = path if path.is_file() else locate(source).weights
        found = read(path).weights("", "state_dict", "model")
    except ValueError as error:
        raise ValueError(f"The trunk of LPIPS by {network!r} cannot be loaded: {error}; {remedy}") from error
    weights = _fitting(found, trunk_shapes(network), f"weights {source} of LPIPS by {network!r}", remedy)
    return weights, _sha256(path)


@functools.cache  # the process that opens a pickle takes 2 seconds
def _read_heads_file(path: Path) -> tuple[dict[str, Tensor], str]:
    return read(path).weights(""), _sha256(path)


def read_heads(network: str) -> tuple[list[Tensor], str]:
    """The weights of the five heads, float32 `(channels,)` each, and the SHA-256 of their file."""
    spec = importlib.util.find_spec("torchmetrics")  # found, not imported: only its files are needed
    if spec is None or spec.origin is None:
        raise ValueError('LPIPS needs the linear heads that torchmetrics ships: pip install "vistok[train]"')
    path = Path(spec.origin).parent / "functional" / "image" / "lpips_models" / f"{network}.pth"
    again = "pip install --force-reinstall torchmetrics"
    try:
        found, sha256 = _read_heads_file(path)
    except ValueError as error:
        raise ValueError(f"LPIPS lacks the linear heads that torchmetrics ships: {error}; {again}") from error
    channels = [stage[-1].channels for stage in TRUNKS[network].stages]
    shapes = {f"lin{number}.model.1.weight": (1, size, 1, 1) for number, size in enumerate(channels)}
    fitting = _fitting(found, shapes, f"linear heads {path}", again)
    return [fitting[name].flatten() for name in shapes], sha256


def _fitting(
    found: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], name: str, remedy: str
) -> dict[str, Tensor]:
    """Those of the weights that are wanted, in float32 and memory of their own.

    What lies beside them is left out: torchvision's files hold the classifiers too. A `features.N` that the
    trunk does not have is refused, because it would be another network's.
    """
    problems = {
        "missing": [key for key in shapes if key not in found],
        "of another network": [key for key in found if key.startswith("features.") and key not in shapes],
        "of another shape": [
            f"{key} {tuple(found[key].shape)} instead of {shape}"
            for key, shape in shapes.items()
            if key in found and found[key].shape != shape
        ],
        "not floats": [key for key in shapes if key in found and not found[key].is_floating_point()],
    }
    fitting = {}
    if not any(problems.values()):
        fitting = {key: found[key].to(torch.float32, copy=True) for key in shapes}
        problems["not finite"] = [key for key, weight in fitting.items() if not weight.isfinite().all()]
    listed = "; ".join(
        f"{kind}: {', '.join(keys[:3])}{f' and {len(keys) - 3} more' if len(keys) > 3 else ''}"
        for kind, keys in problems.items()
        if keys
    )
    if listed:
        raise ValueError(one_line(f"The {name} do not fit: {listed}; {remedy}"))
    return fitting


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
