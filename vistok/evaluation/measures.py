"""What can be measured of reconstructions, the networks that this needs, and how each number comes about."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..messages import one_line
from .distribution import DISTRIBUTION_METRICS, KID_SUBSET_SIZE, KID_SUBSETS, OF_SEVERAL, SEED, SPLITS
from .inception import FIDInception, load_inception, weights_hash
from .lpips import LPIPS
from .metrics import SCALE_WEIGHTS, WINDOW, l1, ms_ssim, mse, psnr, ssim
from .ranks import rank

logger = logging.getLogger(__name__)

_FORMULAE = {"l1": l1, "mse": mse, "psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim}
_TRUNKS = {"lpips_vgg": "vgg", "lpips_alex": "alex"}
METRICS = (*_FORMULAE, *_TRUNKS, *DISTRIBUTION_METRICS)
PLAIN = ("l1", "mse", "psnr", "ssim")  # those that need no network and fit every size
_SMALLEST = {"ssim": WINDOW, "ms_ssim": WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)}  # pixels
_TEXTS = {
    "l1": "mean absolute error per value, pixel values in [0, 1]",
    "mse": "mean squared error per value, pixel values in [0, 1]",
    "psnr": "dB, mean over pictures, RGB",
    "ssim": "11x11 Gaussian window, sigma 1.5, RGB, data range 1, mean over pictures",
    "ms_ssim": "as ssim, five scales of weights 0.0448, 0.2856, 0.3001, 0.2363, 0.1333",
    "rfid": "reconstructions against the cropped originals, 2,048 features",
    "kid": f"mean over {KID_SUBSETS} draws of at most {KID_SUBSET_SIZE:,} pictures, seed {SEED}",
    "inception_score": f"of the reconstructions, mean over {SPLITS} shares, shuffled with seed {SEED}",
}


@dataclass(frozen=True)
class Measures:
    """The metrics of an evaluation, with their networks.

    Attributes:
        names: Of `METRICS`.
        lpips: LPIPS by the name of its metric.
        inception: The network of `DISTRIBUTION_METRICS`.

    Raises:
        ValueError: A name is unknown, or lacks its network.

    Example:
        >>> import torch
        >>> measures = Measures(("psnr", "ssim"))
        >>> pictures = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
        >>> measures.of_pictures(pictures, pictures + 255)["psnr"]
        tensor([-0., -0.], dtype=torch.float64)
    """

    names: tuple[str, ...] = PLAIN
    lpips: Mapping[str, LPIPS] = field(default_factory=dict)
    inception: FIDInception | None = None

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in METRICS:
                raise ValueError(f"metrics must be of {', '.join(METRICS)}, got {name!r}")
            if (name in _TRUNKS and name not in self.lpips) or (
                name in DISTRIBUTION_METRICS and self.inception is None
            ):
                raise ValueError(f"{name} needs its network: use load_measures")

    @property
    def of_each_picture(self) -> list[str]:
        """The names of those that give one number a picture."""
        return [name for name in self.names if name not in DISTRIBUTION_METRICS]

    @torch.no_grad()
    def of_pictures(self, pictures: Tensor, references: Tensor) -> dict[str, Tensor]:
        """What the metrics `of_each_picture` say.

        Args:
            pictures: uint8 `(B, 3, H, W)`, the reconstructions.
            references: The same, the originals.

        Returns:
            float64 `(B,)` by name.
        """
        if pictures.device.type == "mps":  # which has no float64
            pictures, references = pictures.cpu(), references.cpu()
        a, b = pictures.float().div_(255), references.float().div_(255)
        values = {name: formula(a, b) for name, formula in _FORMULAE.items() if name in self.names}
        for name, network in self.lpips.items():
            device = network.get_buffer("shift").device
            values[name] = network(a.to(device) * 2 - 1, b.to(device) * 2 - 1).cpu().double()
        return values

    def describe(self) -> dict[str, str]:
        """How each number comes about, with the hashes of the networks."""
        texts = {name: _TEXTS[name] for name in self.names if name in _TEXTS}
        for name, network in self.lpips.items():
            texts[name] = (
                f"LPIPS 0.1 by {network.network}, RGB, mean over pictures; SHA-256 of the trunk's file "
                f"{network.trunk_sha256}, of the heads' {network.heads_sha256}"
            )
        if self.inception is not None:
            texts["inception"] = (
                "TensorFlow's of 2015-12-05, resized to 299 pixels as TensorFlow 1 does, float32; SHA-256 of "
                f"the weights by name, shape and value {weights_hash(self.inception.state_dict())}"
            )
        return texts


def load_measures(
    names: Sequence[str] | None = None,
    *,
    inception_weights: str | None = None,
    lpips_weights: Mapping[str, str] | None = None,
    device: torch.device | str = "cpu",
) -> Measures:
    """Metrics with their networks.

    Args:
        names: Of `METRICS`; by default all, less those whose weights cannot be had, each of which is logged
            with the way to get them.
        inception_weights: As `load_inception` takes them.
        lpips_weights: `trunk_weights` of LPIPS by `"vgg"` and `"alex"`.
        device: Where the networks compute.

    Raises:
        ValueError: A name is unknown, or the weights of one that was asked for cannot be had.
    """
    chosen = list(METRICS if names is None else names)
    unknown = [name for name in chosen if name not in METRICS]
    if unknown:
        raise ValueError(f"metrics must be of {', '.join(METRICS)}, got {unknown[0]!r}")
    lpips: dict[str, LPIPS] = {}
    inception = None

    def leave_out(left_out: Sequence[str], error: ValueError, flag: str = "") -> None:
        if names is not None:
            raise error
        _warn(f"Without {', '.join(left_out)}: {one_line(error, at_most=300)}{flag}")
        chosen[:] = [name for name in chosen if name not in left_out]

    for name, trunk in _TRUNKS.items():
        if name in chosen:
            try:
                lpips[name] = LPIPS(trunk, (lpips_weights or {}).get(trunk)).to(device).eval()
            except ValueError as error:
                leave_out([name], error, f"; --{name}_weights takes it")
    of_inception = [name for name in DISTRIBUTION_METRICS if name in chosen]
    if of_inception:
        try:
            inception = load_inception(inception_weights).to(device)
        except ValueError as error:
            leave_out(of_inception, error)
    return Measures(tuple(name for name in METRICS if name in chosen), lpips, inception)


def fitting(
    measures: Measures, resolution: int, asked: Sequence[str] | None, pictures: int | None = None
) -> Measures:
    """The metrics that so many pictures of a size have.

    Args:
        measures: The metrics.
        resolution: The smaller of height and width in pixels.
        asked: The names that were asked for; None for all that there are, less those that do not fit.
        pictures: How many there are at most; None where nobody knows.

    Raises:
        ValueError: The pictures are too small or too few for one that was asked for.
    """
    smallest = _SMALLEST | {name: network.smallest for name, network in measures.lpips.items()}
    small = [name for name in measures.names if resolution < smallest.get(name, 1)]
    if asked is not None and small:
        raise ValueError(
            f"{small[0]} needs pictures of at least {smallest[small[0]]} x {smallest[small[0]]} pixels, got "
            f"{resolution}: leave it out of --metrics"
        )
    for name in small:
        _warn(f"Without {name}: it needs at least {smallest[name]} x {smallest[name]} pixels")
    few = [name for name in measures.names if name in OF_SEVERAL and pictures is not None and pictures < 2]
    if asked is not None and few:
        raise ValueError(f"{few[0]} needs at least 2 pictures, got {pictures}: leave it out of --metrics")
    for name in few:
        _warn(f"Without {name}: it needs at least 2 pictures")
    lpips = {name: network for name, network in measures.lpips.items() if name not in small}
    names = tuple(name for name in measures.names if name not in (*small, *few))
    return Measures(names, lpips, measures.inception)


def _warn(message: str) -> None:
    if rank() == 0:  # the others leave out the same
        logger.warning(message)
