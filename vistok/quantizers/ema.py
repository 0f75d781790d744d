"""EMAVQ: a codebook whose entries are moving averages of the latents that chose them.

Neural Discrete Representation Learning. van den Oord, Vinyals, Kavukcuoglu. arXiv:1711.00937, appendix A.1
Entries that nothing chooses start again at a latent. Jukebox. Dhariwal et al. arXiv:2005.00341
"""

import torch
from torch import Tensor
from transformers import initialization as init

from ..configuration import VisualTokenizerConfig, number
from .base import QuantizerOutput, straight_through
from .codebook import CodebookQuantizer, Initialization, as_grid, as_tokens, errors, unit_length
from .distributed import counts_of_ranks, from_rank_zero, rows_of_joined, sum_over_ranks
from .randomness import generator, shared_seed

_ROUNDING = 2e-5  # of an entry: so far its sum and its count drift apart while they fade
_FADED = 1e-20  # of such a count, nothing is left to divide


class EMAVQConfig(VisualTokenizerConfig):
    """The settings of a tokenizer whose codebook is a moving average.

    Args:
        codebook_size: Number of entries.
        codebook_dim: Channels of an entry.
        normalize: Whether latents and entries are scaled to unit length.
        commitment_weight: Weight of the loss that draws latents to entries.
        decay: Share that an optimizer step leaves of the averages.
        epsilon: Of the Laplace smoothing of the counts; 0 for none.
        revival_threshold: Entries that are chosen less often than this share of the mean entry are moved onto
            latents of the batch; 0 for never. With a decay of 0.99, a mean entry that nothing chooses any
            more gets below 0.03 in 349 steps.
        initialization: `"uniform"` in [-1/K, 1/K], `"normal"` with a standard deviation of D^-0.5, or
            `"kmeans"` of the first training batches, 8 latents an entry or more.

    Example:
        >>> from vistok import EMAVQConfig
        >>> EMAVQConfig(codebook_size=16384, decay=0.999).decay
        0.999
    """

    model_type = "vistok_ema_vq"

    codebook_size: int = number(1024, at_least=1, below=2**31)
    codebook_dim: int = number(8, at_least=1, below=2**16)
    normalize: bool = False
    commitment_weight: float | int = number(0.25, at_least=0)
    decay: float | int = number(0.99, at_least=0, below=1)
    epsilon: float | int = number(1e-5, at_least=0)
    revival_threshold: float | int = number(0.03, at_least=0, below=1)
    initialization: Initialization = "normal"


class EMAVQ(CodebookQuantizer):
    """Vector quantization with a codebook of moving averages: no gradient moves it.

    After each optimizer step, over all ranks and micro-batches of it, `counts` and `sums` take `1 - decay` of
    what the step gathered, and every entry that was chosen becomes its sum over its smoothed count,
    `(n + epsilon) / (N + K epsilon) N` with `N` the sum of the counts. The sum and the count of an entry that
    was not chosen fade together, so that it stays.

    Args:
        codebook_size: Number of entries.
        codebook_dim: Channels of an entry.
        normalize: Whether latents and entries are scaled to unit length.
        commitment_weight: Weight of the loss that draws latents to entries.
        decay: Share that an optimizer step leaves of the averages.
        epsilon: Of the Laplace smoothing of the counts; 0 for none.
        revival_threshold: Share of the mean entry's count below which an entry is revived; 0 for never.
        initialization: `"uniform"`, `"normal"` or `"kmeans"`; see `EMAVQConfig`.

    Attributes:
        codebook: float32 `(codebook_size, codebook_dim)`, a buffer.
        counts: float32 `(codebook_size,)`, how often a step chooses each entry.
        sums: float32 `(codebook_size, codebook_dim)`, of the latents that chose it.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> import torch
        >>> from vistok.quantizers import EMAVQ
        >>> quantizer = EMAVQ(codebook_size=16, codebook_dim=4)
        >>> before = quantizer.codebook.clone()
        >>> out = quantizer(torch.randn(2, 4, 8, 8))  # used alone, it updates in forward
        >>> sorted(out.losses), torch.equal(quantizer.codebook, before)
        (['commitment'], False)
    """

    config_class = EMAVQConfig

    def __init__(
        self,
        codebook_size: int = 1024,
        codebook_dim: int = 8,
        normalize: bool = False,
        commitment_weight: float = 0.25,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        revival_threshold: float = 0.03,
        initialization: Initialization = "normal",
    ):
        EMAVQConfig.check(
            codebook_size=codebook_size,
            codebook_dim=codebook_dim,
            normalize=normalize,
            commitment_weight=commitment_weight,
            decay=decay,
            epsilon=epsilon,
            revival_threshold=revival_threshold,
            initialization=initialization,
        )
        super().__init__(codebook_size, codebook_dim, normalize, initialization)
        self.commitment_weight = commitment_weight
        self.decay = decay
        self.epsilon = epsilon
        self.revival_threshold = revival_threshold
        self.batch_statistics = initialization == "kmeans"
        self.register_buffer("codebook", torch.empty(codebook_size, codebook_dim, dtype=torch.float32))
        self.register_buffer("counts", torch.empty(codebook_size, dtype=torch.float32))
        self.register_buffer("sums", torch.empty(codebook_size, codebook_dim, dtype=torch.float32))
        # Counts and sums of this step, cleared and kept when it is over: torch.compile makes a graph for each
        # kind of state that it finds, so that no more may depend on the step than needs to.
        self._gathered: tuple[Tensor, Tensor] | None = None
        self._gathered_any = False
        # Its latents, and which of them are valid, of each residual stage that shares this codebook.
        self._candidates: dict[int, tuple[Tensor, Tensor]] = {}
        self._updates = 0
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the entries; each begins as if one latent a step had chosen it."""
        super().reset_parameters()
        if self.normalize:
            init.copy_(self.codebook, unit_length(self.codebook))
        # Counts of 0 beside sums of one entry would send every entry that is not chosen to infinity.
        init.ones_(self.counts)
        init.copy_(self.sums, self.codebook)

    def quantize(self, latents: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        """See `Quantizer`."""
        rows = self.rows(latents)
        if self.training and self.fit_first_batches(rows, mask):
            self.sums.copy_(self.codebook * self.counts.unsqueeze(1))
        tokens = self.nearest_tokens(rows)
        quantized = self.vectors(tokens).to(latents.dtype)
        losses = {}
        if self.training and self.commitment_weight:
            losses["commitment"] = self.commitment_weight * errors(quantized, rows, mask)[1]
        if self.training and not self.codebook_frozen:
            self._gather(rows.detach(), tokens, mask)
            if not self.updates_by_step:
                self._update(self._updates)
        return QuantizerOutput(
            as_grid(straight_through(rows, quantized), latents), as_tokens(tokens, latents), losses
        )

    def set_step(self, step: int) -> None:
        """Applies what was gathered. See `Quantizer`."""
        super().set_step(step)
        if self._gathered_any:
            self._update(step)
        elif not self.codebook_frozen:
            self.discard_statistics()

    @torch.no_grad()
    def discard_statistics(self) -> None:
        """See `Quantizer`."""
        self._gathered = torch.zeros_like(self.counts), torch.zeros_like(self.sums)
        self._gathered_any = False
        self._candidates = {}

    @torch.no_grad()
    def _gather(self, rows: Tensor, tokens: Tensor, mask: Tensor | None) -> None:
        valid = rows.isfinite().all(1)  # of others no average is made
        if mask is not None:
            valid &= mask.flatten()
        rows = rows.to(self.sums.dtype).masked_fill(~valid.unsqueeze(1), 0)
        if self._gathered is None:
            self.discard_statistics()
        self._gathered_any = True
        counts, sums = self._gathered
        counts.index_add_(0, tokens, valid.to(counts.dtype))
        sums.index_add_(0, tokens, rows)
        if self.revival_threshold:
            if self.stream in self._candidates:
                before, valid_before = self._candidates[self.stream]
                rows, valid = torch.cat([before, rows]), torch.cat([valid_before, valid])
            self._candidates[self.stream] = rows, valid

    @torch.no_grad()
    def _update(self, step: int) -> None:
        counts, sums = (sum_over_ranks(gathered) for gathered in self._gathered)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        chosen = counts > 0
        sizes = self.counts
        if self.epsilon:
            total = self.counts.sum()
            smoothed = (self.counts + self.epsilon) * (total / (total + self.codebook_size * self.epsilon))
            # Smoothing would draw an entry to zero as its count fades; unsmoothed it stays where it is.
            sizes = torch.where(chosen, smoothed, self.counts)
        means = self.sums / sizes.unsqueeze(1)
        means = unit_length(means) if self.normalize else means
        # What is not chosen moves where the averages are of something else, as loaded ones may be, and not by
        # their rounding.
        moved = chosen
        if self.epsilon:
            apart = (means - self.codebook).abs_().amax(1) > _ROUNDING * self.codebook.abs().amax(1)
            moved = chosen | (apart & (self.counts > _FADED))
        torch.where(moved.unsqueeze(1), means, self.codebook, out=self.codebook)
        if self.revival_threshold:
            self._revive(step)
        self._updates += 1
        self.discard_statistics()

    def _revive(self, step: int) -> None:
        mean = self.counts.mean()
        dead = (self.counts < self.revival_threshold * mean).nonzero().squeeze(1)
        # Stage by stage, so that the order is that of one batch on one rank.
        stages = [rows[valid] for rows, valid in self._candidates.values()]
        counts = [counts_of_ranks(len(rows), rows.device) for rows in stages]
        total = sum(map(sum, counts))
        if not len(dead) or not total:
            return
        draw = generator(shared_seed(dead.device), "revival", self.stream, step, device=dead.device)
        places = torch.randperm(total, generator=draw, device=dead.device)[: len(dead)]
        dead = dead[: len(places)]
        entries = torch.empty(len(places), self.codebook_dim, dtype=self.sums.dtype, device=dead.device)
        for rows, of_ranks in zip(stages, counts, strict=True):
            here = (places >= 0) & (places < sum(of_ranks))
            entries[here] = rows_of_joined(rows, of_ranks, places[here])
            places = places - sum(of_ranks)
        from_rank_zero(entries)
        self.codebook[dead] = entries
        self.counts[dead] = mean
        self.sums[dead] = entries * mean
