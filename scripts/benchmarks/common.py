"""What the cases share: the peer, latents, and how far two results are apart."""

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor

PEER = "vector-quantize-pytorch"
HAS_PEER = importlib.util.find_spec("vector_quantize_pytorch") is not None


def make_latents(channels: int, batch: int, side: int, device: str) -> tuple[Tensor, Tensor]:
    """Latents that want a gradient, and weights to make one, each `(batch, channels, side, side)`."""
    generator = torch.Generator().manual_seed(0)
    latents, weights = (torch.randn(batch, channels, side, side, generator=generator) for _ in range(2))
    return (1.5 * latents).to(device).requires_grad_(), weights.to(device)


def difference(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference."""
    return (a.detach().double() - b.detach().double()).abs().max().item()


def differing(a: Tensor, b: Tensor) -> float:
    """How many tokens differ."""
    return float((a.long() != b.long()).sum())


def backward(latents: Tensor, weights: Tensor, quantized: Tensor, loss: Tensor | None = None) -> Tensor:
    """The gradient of the latents under weights for the quantized vectors and a loss."""
    latents.grad = None
    if loss is None:
        quantized.backward(weights)
    else:
        torch.autograd.backward([quantized, loss], [weights, None])
    return latents.grad


def train_step(module, latents: Tensor, weights: Tensor, run: Callable) -> Callable[[], None]:
    """A step of `run(module) -> quantized, loss`, backward included."""

    def step() -> None:
        module.zero_grad()
        quantized, loss = run(module)
        backward(latents, weights, quantized, loss)
        # Gradients count as the step's memory, not as what was there before.
        latents.grad = None
        module.zero_grad()

    return step
