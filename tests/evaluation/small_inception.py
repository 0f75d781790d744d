"""A network in the place of FID's Inception: the same calls, few features, and nothing to load."""

import torch
from torch import Tensor, nn


class SmallInception(nn.Module):
    """Means over a grid of places, and their squares."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(24, 7, bias=False)
        with torch.no_grad():
            self.fc.weight.copy_(torch.arange(24 * 7).float().mul(0.7).sin().view(7, 24))

    def features(self, pictures: Tensor) -> Tensor:
        means = nn.functional.adaptive_avg_pool2d(pictures.float() / 255, 2).flatten(1)
        return torch.cat([means, means.square()], 1)

    def logits(self, features: Tensor) -> Tensor:
        return nn.functional.linear(features, self.fc.weight)
