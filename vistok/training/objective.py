"""What the tokenizer is trained to minimize beside an adversary: named terms, each with its weight."""

from torch import Tensor, nn
from torch.nn import functional as F

from ..modeling import TokenizerOutput
from .config import TrainingConfig
from .perceptual import PerceptualLoss


class Objective(nn.Module):
    """The distances of a reconstruction from its picture, and the quantizer's own losses.

    Args:
        l1_weight: Weight of the mean absolute error.
        l2_weight: Weight of the mean squared error.
        perceptual: The perceptual distance; None for none.
        perceptual_weight: Its weight.

    Example:
        >>> import torch
        >>> from vistok.modeling import TokenizerOutput
        >>> losses = {"commitment": torch.tensor(0.25)}
        >>> out = TokenizerOutput(reconstruction=torch.ones(1, 3, 4, 4), losses=losses)
        >>> terms = Objective(l1_weight=1.0, l2_weight=0.5)(torch.zeros(1, 3, 4, 4), out)
        >>> {name: term.item() for name, term in terms.items()}
        {'l1': 1.0, 'l2': 0.5, 'quantizer/commitment': 0.25}
    """

    def __init__(
        self,
        l1_weight: float = 0.0,
        l2_weight: float = 1.0,
        perceptual: PerceptualLoss | None = None,
        perceptual_weight: float = 1.0,
    ):
        super().__init__()
        self.l1_weight, self.l2_weight = l1_weight, l2_weight
        self.perceptual, self.perceptual_weight = perceptual, perceptual_weight

    @classmethod
    def from_config(cls, config: TrainingConfig) -> "Objective":
        """The objective of a training run.

        Raises:
            ValueError: The weights of the perceptual network cannot be had.
        """
        perceptual = None
        if config.perceptual_weight:
            try:
                perceptual = PerceptualLoss(config.perceptual_network, config.perceptual_trunk_weights)
            except ValueError as error:
                message = str(error).replace("give trunk_weights", "give --perceptual_trunk_weights")
                raise ValueError(f"perceptual_weight: {message}") from error
        return cls(config.l1_weight, config.l2_weight, perceptual, config.perceptual_weight)

    def forward(self, pixel_values: Tensor, out: TokenizerOutput) -> dict[str, Tensor]:
        """The weighted terms by name, scalars whose sum is minimized; those of weight 0 are left out.

        Args:
            pixel_values: float `(B, 3, H, W)` in [-1, 1].
            out: What the tokenizer made of them.
        """
        reconstruction, target = out.reconstruction.float(), pixel_values.float()
        terms = {}
        if self.l1_weight:
            terms["l1"] = self.l1_weight * F.l1_loss(reconstruction, target)
        if self.l2_weight:
            terms["l2"] = self.l2_weight * F.mse_loss(reconstruction, target)
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual_weight * self.perceptual(reconstruction, target)
        return terms | {f"quantizer/{name}": loss for name, loss in (out.losses or {}).items()}
