"""What is gathered while the pictures of a split pass by, over all batches and ranks."""

from typing import Any

import torch
from torch import Tensor

from .distribution import DistributionMetrics
from .measures import Measures
from .pixel_range import check_range, to_levels
from .ranks import in_row_order, joined
from .usage import CodebookUsage, RecentUsage

# By which metric the worst, median and best reconstructions are chosen: the first of these that is measured.
RANKED_BY = ("lpips_vgg", "lpips_alex", "ssim", "psnr", "mse", "l1")
HIGHER_IS_BETTER = {"psnr", "ssim", "ms_ssim", "inception_score", "codebook_usage", "codebook_perplexity"}
EXTREMES = 3  # pictures of each kind


class Measurement:
    """Measures reconstructions batch by batch; the result depends neither on batches nor on ranks.

    Each rank measures its own pictures. Numbers of single pictures are put in the order of the rows and
    averaged in float64; counts of tokens are summed.

    Args:
        measures: The metrics.
        codebook_size: Entries of one codebook, None where there are no tokens.
        num_codebooks: Number of codebooks.

    Example:
        >>> import torch
        >>> measurement = Measurement(Measures(("psnr",)))
        >>> pixels = torch.full((2, 3, 16, 16), 100, dtype=torch.uint8)
        >>> measurement.update(torch.arange(2), pixels / 127.5 - 1, pixels)
        >>> measurement.finish(expected=2)["metrics"]
        {'psnr': inf}
    """

    def __init__(self, measures: Measures, codebook_size: int | None = None, num_codebooks: int = 1):
        self.measures = measures
        self._usage = CodebookUsage(codebook_size, num_codebooks) if codebook_size else None
        self._recent = RecentUsage(codebook_size, num_codebooks) if codebook_size else None
        needed = [name for name in measures.names if name not in measures.of_each_picture]
        self._distribution = DistributionMetrics(measures.inception, needed) if needed else None
        self._rows: list[Tensor] = []
        self._values: list[Tensor] = []
        self._unreadable: list[Tensor] = []

    def update(
        self, rows: Tensor, reconstruction: Tensor, references: Tensor, tokens: Tensor | None = None
    ) -> None:
        """Measures further pictures.

        Args:
            rows: int64 `(B,)`, their numbers in the split; no two are equal.
            reconstruction: float `(B, 3, H, W)`, about [-1, 1].
            references: uint8 `(B, 3, H, W)`, the originals.
            tokens: int64 `(B, *token_shape)`, where codebooks are measured.

        Raises:
            ValueError: The reconstructions are not finite, of another size, or in another range.
        """
        if reconstruction.shape != references.shape:
            raise ValueError(
                f"Expected reconstructions of {_size(references)} pixels, as the pictures are, got "
                f"{_size(reconstruction)}"
            )
        if not reconstruction.isfinite().all():
            bad = rows[(~reconstruction.isfinite()).flatten(1).any(1).cpu()].tolist()
            more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
            raise ValueError(
                f"Reconstructions of rows {', '.join(map(str, bad[:5]))}{more} are not finite: is the "
                "model broken?"
            )
        if not self._rows:
            check_range(reconstruction, references)
        pictures = to_levels(reconstruction)
        values = self.measures.of_pictures(pictures, references)
        self._rows.append(rows.cpu())
        columns = [values[name].cpu()[:, None] for name in self.measures.of_each_picture]
        self._values.append(torch.cat([torch.zeros(len(rows), 0, dtype=torch.float64), *columns], 1))
        if self._distribution is not None:
            self._distribution.update(rows, pictures, references)
        if self._usage is not None:
            self._usage.update(tokens)
            self._recent.update(rows, tokens)

    def skip(self, rows: Tensor) -> None:
        """Notes that pictures cannot be read: rows int64 `(B,)`."""
        self._unreadable.append(rows.cpu())

    def finish(self, expected: int | None) -> dict[str, Any]:
        """What was measured, over all ranks; every rank must call it, and gets the same.

        Args:
            expected: How many pictures there must be, the unreadable ones among them; None where nobody
                knows.

        Returns:
            `metrics`, `codebooks` (what `CodebookUsage.each_codebook` says), `extremes`, `pictures`,
            `unreadable_rows`.

        Raises:
            ValueError: There are no pictures, more or fewer than expected, or one twice.
        """
        names = self.measures.of_each_picture
        none = torch.zeros(0, dtype=torch.int64)
        no_values = torch.zeros(0, len(names), dtype=torch.float64)
        rows, values = in_row_order(torch.cat([none, *self._rows]), torch.cat([no_values, *self._values]))
        unreadable = joined(torch.cat([none, *self._unreadable])).sort().values
        if len(rows) == 0:
            raise ValueError("no picture can be read: nothing to evaluate")
        seen = torch.cat([rows, unreadable])
        if len(seen.unique()) != len(seen) or (expected is not None and len(seen) != expected):
            raise ValueError(
                f"Expected {'each picture once' if expected is None else f'{expected:,} pictures'}, got "
                f"{len(rows):,} that can be read and {len(unreadable):,} that cannot, {len(seen.unique()):,} "
                "different ones: is a file missing or cut off?"
            )
        metrics = dict(zip(names, values.mean(0).tolist(), strict=True))
        codebooks = []
        if self._distribution is not None:
            metrics |= self._distribution.compute()
        if self._usage is not None:
            self._usage.add_other_ranks()
            metrics |= self._usage.compute()
            metrics["usage_queue_65536"] = self._recent.compute()
            codebooks = self._usage.each_codebook()
        return {
            "metrics": metrics,
            "codebooks": codebooks,
            "extremes": _extremes(names, rows, values),
            "pictures": len(rows),
            "unreadable_rows": unreadable.tolist(),
        }


def _extremes(names: list[str], rows: Tensor, values: Tensor) -> dict[str, Any]:
    """The worst, median and best rows by one metric, each with its value."""
    by = next((name for name in RANKED_BY if name in names), None)
    if by is None:
        return {}
    scores = values[:, names.index(by)]
    order = scores.argsort(descending=by not in HIGHER_IS_BETTER, stable=True)  # the worst first
    count = min(EXTREMES, len(order))
    middle = (len(order) - count) // 2
    places = {"worst": order[:count], "median": order[middle : middle + count], "best": order[-count:]}
    chosen = {
        kind: [{"row": int(rows[i]), by: float(scores[i])} for i in chosen] for kind, chosen in places.items()
    }
    return {"by": by, **chosen}


def _size(pictures: Tensor) -> str:
    return " x ".join(map(str, pictures.shape[-2:]))
