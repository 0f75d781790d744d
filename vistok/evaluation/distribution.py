"""Measures of all reconstructions together, by features of a network: rFID, KID and the Inception score.

The formulae are those of torchmetrics; here is what feeds them so that ranks and batches change nothing.
"""

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor, nn

from .inception import FIDInception
from .ranks import in_row_order, joined, rank

logger = logging.getLogger(__name__)

DISTRIBUTION_METRICS = ("rfid", "kid", "inception_score")
OF_SEVERAL = ("rfid", "kid")  # not defined of one picture
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000  # or all pictures where there are fewer
SPLITS = 10  # of the Inception score
SEED = 2020  # of what KID and the Inception score draw; torch-fidelity's


class DistributionMetrics:
    """rFID, KID and the Inception score of reconstructions, over all ranks.

    rFID takes the count, the sum and the products of the features, in float64. KID and the Inception score
    keep the features themselves, 16 KB and 4 KB a picture, and take them in the order of the rows.

    GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium. Heusel et al.
    arXiv:1706.08500
    Demystifying MMD GANs. Binkowski et al. arXiv:1801.01401
    Improved Techniques for Training GANs. Salimans et al. arXiv:1606.03498

    Args:
        network: The network of the features.
        names: Those to measure, of `DISTRIBUTION_METRICS`.

    Raises:
        ValueError: torchmetrics is not installed.

    Example:
        >>> import torch
        >>> from vistok.evaluation.inception import FIDInception
        >>> metrics = DistributionMetrics(FIDInception().eval(), ["kid"])
        >>> pictures = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
        >>> metrics.update(torch.arange(4), pictures, pictures)
        >>> list(metrics.compute())
        ['kid']
    """

    def __init__(self, network: FIDInception, names: Sequence[str]):
        self.network = network
        self.names = [name for name in DISTRIBUTION_METRICS if name in names]
        self._frechet = (
            frechet_distance(network.fc.in_features, network.fc.weight.device) if "rfid" in names else None
        )
        self._rows: list[Tensor] = []
        self._pairs: list[Tensor] = []
        self._logits: list[Tensor] = []

    @torch.no_grad()
    def update(self, rows: Tensor, pictures: Tensor, references: Tensor) -> None:
        """Takes further pictures.

        Args:
            rows: int64 `(B,)`, their numbers in the split.
            pictures: uint8 `(B, 3, H, W)`, the reconstructions.
            references: The same, the originals.
        """
        features = self.network.features(pictures)
        self._rows.append(rows.cpu())
        if "inception_score" in self.names:
            self._logits.append(self.network.logits(features).cpu())
        if self.names == ["inception_score"]:
            return
        originals = self.network.features(references)
        if self._frechet is not None:
            self._frechet.update(originals.to(self._frechet.device).double(), real=True)
            self._frechet.update(features.to(self._frechet.device).double(), real=False)
        if "kid" in self.names:
            self._pairs.append(torch.stack([features, originals], 1).cpu())

    def compute(self) -> dict[str, float]:
        """Each metric by its name; every rank must call it, and gets the same.

        Of a single picture rFID and KID are NaN, which is logged.
        """
        results = {}
        rows = torch.cat([torch.zeros(0, dtype=torch.int64), *self._rows])
        alone = [name for name in self.names if name in OF_SEVERAL] if len(joined(rows)) < 2 else []
        if alone:
            results = dict.fromkeys(alone, math.nan)
            if rank() == 0:
                logger.warning("NaN in the place of %s: that needs at least 2 pictures", ", ".join(alone))
        if self._frechet is not None and not alone:
            results["rfid"] = float(self._frechet.compute())
        if "kid" in self.names and not alone:
            _, pairs = in_row_order(
                rows, torch.cat([torch.zeros(0, 2, self.network.fc.in_features), *self._pairs])
            )
            results["kid"] = kernel_distance(*pairs.to(self.network.fc.weight.device).unbind(1))
        if "inception_score" in self.names:
            _, logits = in_row_order(
                rows, torch.cat([torch.zeros(0, self.network.fc.out_features), *self._logits])
            )
            results["inception_score"] = inception_score(logits)
        return results


def frechet_distance(dim: int, device: torch.device | str = "cpu"):
    """FID of features `(B, dim)` in place of pictures, float64 and over all ranks.

    Args:
        dim: Number of features.
        device: Where sums are kept.
    """
    metric = _metric_classes().fid.FrechetInceptionDistance(_Given(dim))
    metric = metric.to("cpu" if torch.device(device).type == "mps" else device)  # which has no float64
    for real in (
        True,
        False,
    ):  # a rank may have no pictures, and torchmetrics takes its dtype from the last ones
        metric.update(torch.zeros(0, dim, dtype=torch.float64, device=metric.device), real=real)
    return metric


def kernel_distance(features: Tensor, references: Tensor) -> float:
    """KID of features, each `(N, D)`: the mean over 100 draws of at most 1,000."""
    size = min(KID_SUBSET_SIZE, len(features))
    given = {"subsets": KID_SUBSETS, "subset_size": size, "sync_on_compute": False}
    with _same_chance():
        metric = _metric_classes().kid.KernelInceptionDistance(_Given(features.shape[1]), **given)
        metric.update(references, real=True)
        metric.update(features, real=False)
        return float(metric.compute()[0])


def inception_score(logits: Tensor) -> float:
    """The Inception score of logits `(N, C)`: the mean over 10 shares of shuffled pictures."""
    with _same_chance():
        metric = _metric_classes().inception.InceptionScore(
            _Given(logits.shape[1]), splits=SPLITS, sync_on_compute=False
        )
        metric.update(logits.double())
        return float(metric.compute()[0])


@contextmanager
def _same_chance() -> Iterator[None]:
    """Chance begins at `SEED` within a block, and outside it goes on as if there had been none."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric .* will save all extracted features in buffer")
        warnings.filterwarnings("ignore", message=r"std\(\): degrees of freedom")  # of a single share
        torch.default_generator.manual_seed(SEED)
        yield


def _metric_classes() -> ModuleType:
    try:
        import torchmetrics.image.fid
        import torchmetrics.image.inception
        import torchmetrics.image.kid
    except ImportError as error:
        raise ValueError(
            'rFID, KID and the Inception score need torchmetrics: pip install "vistok[eval]"'
        ) from error
    return torchmetrics.image


class _Given(nn.Module):
    """In the place of a network: features are given in the place of pictures."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features
