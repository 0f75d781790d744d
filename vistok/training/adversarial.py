"""The adversarial losses, the weight that balances them, and what keeps the discriminator in bounds.

Logits are high for pictures and low for reconstructions. Everything is computed in float32, under autocast
and for half-precision logits too.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..quantizers.checks import at_least_float32
from ..quantizers.distributed import sum_over_ranks, world_size

AdversarialKind = Literal["hinge", "vanilla", "non_saturating"]


def discriminator_loss(kind: AdversarialKind, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """What the discriminator minimizes: the mean of the loss on pictures and of that on reconstructions.

    `"hinge"`: `(E[max(0, 1 - D(x))] + E[max(0, 1 + D(y))]) / 2`, Geometric GAN, arXiv:1705.02894.
    `"vanilla"` and `"non_saturating"`: `(E[softplus(-D(x))] + E[softplus(D(y))]) / 2`, the cross-entropy of
    telling the two apart, Generative Adversarial Networks, arXiv:1406.2661; they differ for the generator.

    Means are over pictures and patches. A discriminator that knows nothing has a loss of 1, or of log 2. The
    half is that of pix2pix and of VQGAN; StyleGAN2 leaves it out.

    Args:
        kind: Which loss.
        real_logits: float, any shape, of pictures.
        fake_logits: float, any shape, of reconstructions; detach those, lest the generator learns from it.

    Returns:
        float32 scalar.

    Raises:
        ValueError: There is no such kind.
    """
    _check_kind(kind)
    real, fake = at_least_float32(real_logits), at_least_float32(fake_logits)
    if kind == "hinge":
        return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


def generator_loss(kind: AdversarialKind, fake_logits: Tensor) -> Tensor:
    """What the tokenizer minimizes, so that its reconstructions pass for pictures.

    `"hinge"` and `"vanilla"`: `-E[D(y)]`, as VQGAN has it for both. `"non_saturating"`: `E[softplus(-D(y))]`,
    as arXiv:1406.2661 and StyleGAN2 have it, whose gradient fades where a patch passes already. Means are
    over pictures and patches; Open-MAGVIT2 takes the mean of a picture's patches first and the softplus of
    that.

    Args:
        kind: Which loss.
        fake_logits: float, any shape, of reconstructions.

    Returns:
        float32 scalar.

    Raises:
        ValueError: There is no such kind.
    """
    _check_kind(kind)
    fake = at_least_float32(fake_logits)
    return F.softplus(-fake).mean() if kind == "non_saturating" else -fake.mean()


def adaptive_weight(
    reconstruction_loss: Tensor, adversarial_loss: Tensor, last_layer: Tensor, scale: Tensor | float = 1.0
) -> Tensor:
    """The weight that makes the adversarial loss pull at the decoder as hard as the reconstruction loss does.

    `||grad reconstruction|| / (||grad adversarial|| + 1e-4)`, clamped to [0, 1e4], where the gradients are
    those at the decoder's last layer, averaged over the ranks: section 3.2 of Taming Transformers for
    High-Resolution Image Synthesis, arXiv:2012.09841. Each micro-batch has a weight of its own: several do
    not equal one batch.

    Args:
        reconstruction_loss: Scalar whose graph reaches `last_layer`; the graph is kept.
        adversarial_loss: Scalar whose graph reaches `last_layer`; the graph is kept.
        last_layer: The weight of the decoder's last layer: `decoder.last_layer` of the unwrapped model.
        scale: What fp16 multiplies its losses by (that of the `GradScaler`), so that the gradients of means
            over millions of values do not vanish on their way to the last layer. It changes nothing else.

    Returns:
        float32 scalar without a graph, the same on all ranks. NaN where a gradient is not finite: then the
        loss is NaN too, and a loop that skips such steps skips this one. A weight of 0 would let the step
        pass without its adversarial part, again and again where fp16's scale is what overflows, because
        nothing would lower it.
    """
    # Flat: collectives want contiguous tensors, and a gradient may have the channels last.
    gradients = torch.stack(
        [
            at_least_float32(torch.autograd.grad(loss * scale, last_layer, retain_graph=True)[0]).flatten()
            for loss in (reconstruction_loss, adversarial_loss)
        ]
    )
    norms = torch.linalg.vector_norm(sum_over_ranks(gradients) / (world_size() * scale), dim=1)
    weight = (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4)
    return weight.masked_fill(~norms.isfinite().all(), torch.nan)


def r1_penalty(discriminator: nn.Module, pixel_values: Tensor) -> Tensor:
    """R1: keeps the discriminator flat at pictures. `0.5 * E[||grad_x D(x)||^2]`; its weight is the caller's.

    Which Training Methods for GANs do actually Converge? Mescheder et al. arXiv:1801.04406. D(x) is the sum
    of a picture's logits, the squared norm the sum over its values, the mean one over pictures: the
    convention of StyleGAN2, where the weight is called gamma. With batch normalization the gradient also
    holds what a picture does to the logits of the others. The discriminator runs once more, with autocast
    off.

    Args:
        discriminator: float `(B, 3, H, W)` -> logits of any shape; without a wrapper of
            `DistributedDataParallel`, which wants one forward for each backward.
        pixel_values: float `(B, 3, H, W)`, pictures.

    Returns:
        float32 scalar, differentiable by the discriminator's parameters.

    Raises:
        ValueError: The discriminator has a `SyncBatchNorm`, which autograd cannot differentiate twice.
    """
    if any(isinstance(module, nn.SyncBatchNorm) for module in discriminator.modules()):
        raise ValueError(
            "R1 differentiates the discriminator twice, which SyncBatchNorm does not allow: set its "
            "normalization to 'group', or the weight of R1 to 0"
        )
    pixel_values = at_least_float32(pixel_values.detach()).requires_grad_()
    with torch.autocast(pixel_values.device.type, enabled=False):
        logits = discriminator(pixel_values)
        (gradient,) = torch.autograd.grad(logits.sum(), pixel_values, create_graph=True)
        return 0.5 * gradient.square().sum() / len(pixel_values)


class LeCam(nn.Module):
    """LeCAM: keeps logits of pictures near the average of those of reconstructions, and the other way round.

    Regularizing Generative Adversarial Networks under Limited Data. Tseng et al. arXiv:2104.03310, in the
    form of its published code: `E[max(0, D(x) - fake_mean)^2] + E[max(0, real_mean - D(y))^2]`, means over
    pictures and patches. The averages begin at 0 and are those before this step: what the step gathers, over
    its micro-batches and all ranks, is applied after it, or discarded where it was skipped.

    Args:
        decay: Share that an optimizer step leaves of the averages.

    Attributes:
        real_mean: float32 scalar, a buffer: the average logit of pictures.
        fake_mean: float32 scalar, a buffer: the average logit of reconstructions.

    Raises:
        ValueError: The decay is out of range.

    Example:
        >>> import torch
        >>> from vistok.training.adversarial import LeCam
        >>> lecam = LeCam(decay=0.5)
        >>> real, fake = torch.tensor([2.0, -1.0]), torch.tensor([-4.0])
        >>> penalty = lecam(real, fake)  # (2^2 + 0) / 2 + 4^2
        >>> lecam.gather_statistics(real, fake)
        >>> lecam.apply_statistics()
        >>> penalty.item(), lecam.real_mean.item(), lecam.fake_mean.item()
        (18.0, 0.25, -2.0)
    """

    def __init__(self, decay: float = 0.999):
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.register_buffer("real_mean", torch.zeros((), dtype=torch.float32))
        self.register_buffer("fake_mean", torch.zeros((), dtype=torch.float32))
        self._gathered: Tensor | None = None  # (2, 2): sum and number of logits, of pictures and the others

    def forward(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The penalty, without its weight; it changes no state.

        Args:
            real_logits: float, any shape, of pictures.
            fake_logits: float, any shape, of reconstructions.

        Returns:
            float32 scalar.
        """
        real, fake = at_least_float32(real_logits), at_least_float32(fake_logits)
        return F.relu(real - self.fake_mean).square().mean() + F.relu(self.real_mean - fake).square().mean()

    @torch.no_grad()
    def gather_statistics(self, real_logits: Tensor, fake_logits: Tensor) -> None:
        """Adds a micro-batch of this rank to what `apply_statistics` will apply.

        Args:
            real_logits: float, any shape, of pictures.
            fake_logits: float, any shape, of reconstructions.
        """
        dtype = self.real_mean.dtype
        found = torch.stack(
            [
                torch.stack([logits.sum(dtype=dtype), logits.new_full((), logits.numel(), dtype=dtype)])
                for logits in (real_logits, fake_logits)
            ]
        )
        self._gathered = found if self._gathered is None else self._gathered + found

    @torch.no_grad()
    def apply_statistics(self) -> None:
        """Moves the averages, after a step that was taken. All ranks must call it."""
        if self._gathered is None:
            return
        sums, counts = sum_over_ranks(self._gathered).unbind(1)
        real, fake = sums / counts
        self.real_mean.lerp_(real, 1 - self.decay)
        self.fake_mean.lerp_(fake, 1 - self.decay)
        self.discard_statistics()

    def discard_statistics(self) -> None:
        """Forgets what was gathered, after a step that was skipped."""
        self._gathered = None


def _check_kind(kind: str) -> None:
    if kind not in ("hinge", "vanilla", "non_saturating"):
        raise ValueError(f"The adversarial loss must be 'hinge', 'vanilla' or 'non_saturating', got {kind!r}")
