"""The rotation trick: the gradient of an entry reaches its latent turned and scaled as the entry is.

Restructuring Vector Quantization with the Rotation Trick. Fifty, Junkins, Duan, Iyengar, Liu, Amid, Thrun,
Ré. arXiv:2410.06424
"""

import torch
from torch import Tensor


def rotated(rows: Tensor, quantized: Tensor) -> Tensor:
    """`quantized`, bit for bit, whose gradient goes to the rows as through a rotation and a scaling.

    The rotation turns each row into the direction of its entry, the scaling gives it the entry's length; both
    are held constant. A row or an entry without length, and opposite ones, pass their gradient unchanged.

    Args:
        rows: float `(N, D)`.
        quantized: float `(N, D)`.
    """
    return _Rotated.apply(rows, quantized)


class _Rotated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, quantized: Tensor) -> Tensor:
        ctx.save_for_backward(rows, quantized)
        return quantized.clone()  # of its own, so that it may be changed in place

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        rows, quantized = ctx.saved_tensors
        tiny = torch.finfo(rows.dtype).tiny
        length, target = (x.norm(dim=1, keepdim=True) for x in (rows, quantized))
        u, v = rows / length.clamp(min=tiny), quantized / target.clamp(min=tiny)
        middle = u + v
        size = middle.norm(dim=1, keepdim=True)
        r = middle / size.clamp(min=tiny)
        # The transpose of the forward's scale * (1 - 2 r r' + 2 v u').
        turned = gradient - 2 * r * (r * gradient).sum(1, keepdim=True)
        turned += 2 * u * (v * gradient).sum(1, keepdim=True)
        turned *= target / length.clamp(min=tiny)
        defined = (length > tiny) & (target > tiny) & (size > 1e-6)
        return torch.where(defined, turned, gradient), None
