"""The perceptual loss: how different reconstructions look from the pictures, by LPIPS (arXiv:1801.03924)."""

from typing import Literal

from torch import Tensor, nn

from ..evaluation.lpips import LPIPS


class PerceptualLoss(nn.Module):
    """The mean LPIPS distance of reconstructions to their pictures.

    It is a judge, not a part of the model: it has no parameters, and nothing of it is in a `state_dict()`.

    Args:
        network: The trunk, `"vgg"` or `"alex"`.
        trunk_weights: Where its weights are; see `LPIPS`.

    Raises:
        ValueError: There is no such network, or its weights cannot be loaded.

    Example:
        >>> import tempfile, torch
        >>> from safetensors.torch import save_file
        >>> from vistok.evaluation.lpips_weights import trunk_shapes
        >>> file = tempfile.NamedTemporaryFile(suffix=".safetensors")
        >>> shapes = trunk_shapes("alex")  # random weights, to try it; real ones are on the Hub
        >>> save_file({name: torch.randn(shape) / 30 for name, shape in shapes.items()}, file.name)
        >>> loss = PerceptualLoss("alex", trunk_weights=file.name)
        >>> pixel_values = torch.rand(2, 3, 64, 64) * 2 - 1
        >>> loss(pixel_values, pixel_values)
        tensor(0.)
    """

    def __init__(self, network: Literal["vgg", "alex"] = "vgg", trunk_weights: str | None = None):
        super().__init__()
        self.lpips = LPIPS(network, trunk_weights)

    def forward(self, reconstruction: Tensor, pixel_values: Tensor) -> Tensor:
        """The loss, computed in float32 with autocast off.

        Args:
            reconstruction: float `(B, 3, H, W)`, near [-1, 1]; gradients reach it.
            pixel_values: float `(B, 3, H, W)` in [-1, 1]; no gradient reaches them.

        Returns:
            A float32 scalar, at least 0.

        Raises:
            ValueError: The two differ in shape, or are smaller than the network takes (`lpips.smallest`).
        """
        return self.lpips(reconstruction, pixel_values.detach()).mean()
