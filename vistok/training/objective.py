"""What training minimizes: named terms, each with its weight."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ..modeling import TokenizerOutput


class Objective(nn.Module):
    """The reconstruction loss beside the quantizer's own losses.

    Args:
        reconstruction_loss: `"l1"` or `"l2"`.
        reconstruction_weight: Its weight.
    """

    def __init__(self, reconstruction_loss: Literal["l1", "l2"] = "l2", reconstruction_weight: float = 1.0):
        super().__init__()
        self.distance = {"l1": F.l1_loss, "l2": F.mse_loss}[reconstruction_loss]
        self.reconstruction_weight = reconstruction_weight

    def forward(self, pixel_values: Tensor, out: TokenizerOutput) -> dict[str, Tensor]:
        """The weighted terms by name, scalars whose sum is minimized.

        Args:
            pixel_values: float `(B, 3, H, W)` in [-1, 1].
            out: What the tokenizer made of them.
        """
        distance = self.distance(out.reconstruction.float(), pixel_values.float())
        terms = {"reconstruction": self.reconstruction_weight * distance}
        return terms | {f"quantizer/{name}": loss for name, loss in out.losses.items()}
