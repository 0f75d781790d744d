"""The Inception network of FID: TensorFlow's of December 2015, whose features published rFID figures compare.

Rethinking the Inception Architecture for Computer Vision. Szegedy et al. arXiv:1512.00567
GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium. Heusel et al.
arXiv:1706.08500
The names of the weights are those of pytorch-fid and torch-fidelity, so that their file loads.
"""

import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES = 2048
LOGITS = 1008
SIZE = 299  # pixels: height and width of what the network sees
WEIGHTS_URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
HOW_TO_GET = (
    f"download {WEIGHTS_URL} and give --inception_weights FILE, or pip install torch-fidelity torchvision"
)


class FIDInception(nn.Module):
    """Inception v3 as FID's authors use it, with random weights until some are loaded.

    It differs from torchvision's in average pooling without the padding, in a maximum in place of an average
    in the last block, and in 1,008 classes.

    Example:
        >>> import torch
        >>> features = FIDInception().eval().features(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
        >>> tuple(features.shape)
        (1, 2048)
    """

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3)
        self.Mixed_5b = _MixedA(192, 32)
        self.Mixed_5c = _MixedA(256, 64)
        self.Mixed_5d = _MixedA(288, 64)
        self.Mixed_6a = _MixedB(288)
        self.Mixed_6b = _MixedC(768, 128)
        self.Mixed_6c = _MixedC(768, 160)
        self.Mixed_6d = _MixedC(768, 160)
        self.Mixed_6e = _MixedC(768, 192)
        self.Mixed_7a = _MixedD(768)
        self.Mixed_7b = _MixedE(1280, _average_pool)
        self.Mixed_7c = _MixedE(2048, _maximum_pool)
        self.fc = nn.Linear(FEATURES, LOGITS)

    def features(self, pictures: Tensor) -> Tensor:
        """The features that FID and KID compare.

        Args:
            pictures: uint8 `(B, 3, H, W)`.

        Returns:
            float32 `(B, 2048)`.
        """
        x = resize_as_tensorflow(pictures.float(), SIZE).sub(128).div(128)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, stride=2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))

    def logits(self, features: Tensor) -> Tensor:
        """The logits that the Inception score takes: without the bias, as in its authors' graph.

        Args:
            features: float32 `(B, 2048)`.

        Returns:
            float32 `(B, 1008)`.
        """
        return F.linear(features, self.fc.weight)


def load_inception(weights: str | Path | None = None) -> FIDInception:
    """The network with trained weights.

    Args:
        weights: `pt_inception-2015-12-05-6726825d.pth` of pytorch-fid or torch-fidelity, or the same as
            safetensors; by default torch-fidelity fetches them, where it is installed.

    Raises:
        ValueError: There are none, or the file is not of this network.
    """
    if weights is None:
        try:
            extractor = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
        except (ImportError, RuntimeError) as error:  # a torchvision that does not fit torch fails so
            raise ValueError(
                f"rFID, KID and the Inception score need the weights of Inception: {HOW_TO_GET}"
            ) from error
        state = extractor.FeatureExtractorInceptionV3("inception", ["2048"]).state_dict()
    else:
        from ..conversion.reading import read

        state = read(weights).weights("", "state_dict", "model")
    network = FIDInception()
    # Files older than torch 0.4.1 lack these counters, which evaluation does not use.
    missing = {
        name for name in network.state_dict() if not name.endswith("num_batches_tracked")
    } - state.keys()
    if missing:
        raise ValueError(
            f"{weights} lacks {len(missing)} weights of FID's Inception, such as {min(missing)}; {HOW_TO_GET}"
        )
    try:
        network.load_state_dict(
            {name: state[name] for name in network.state_dict() if name in state}, strict=False
        )
    except RuntimeError as error:
        raise ValueError(
            f"{weights} is not of FID's Inception: {' '.join(str(error).split())[:300]}"
        ) from error
    return network.eval().requires_grad_(False)


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """The SHA-256 of weights by name, shape and value: the same whatever file they came in.

    Args:
        state: A network's `state_dict()`; counters of batches have no part in it.
    """
    digest = hashlib.sha256()
    for name in sorted(name for name in state if not name.endswith("num_batches_tracked")):
        digest.update(f"{name} {tuple(state[name].shape)}".encode())
        digest.update(state[name].detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def resize_as_tensorflow(x: Tensor, size: int) -> Tensor:
    """Resizes as TensorFlow 1 does: bilinear, the first pixels of both pictures on each other, not smoothed.

    The graph of FID begins with it; other ways of resizing change rFID.

    Args:
        x: float `(B, C, H, W)`.
        size: Height and width of the result.
    """
    vertical, horizontal = (_interpolation(length, size, x) for length in x.shape[-2:])
    return vertical @ x @ horizontal.mT


def _interpolation(length: int, size: int, like: Tensor) -> Tensor:
    """`(size, length)`: which of `length` pixels make each of `size`."""
    place = torch.arange(size, device=like.device, dtype=like.dtype) * (length / size)
    low = place.long().clamp(max=length - 1)
    part = (place - low).unsqueeze(1)
    pixels = torch.eye(length, device=like.device, dtype=like.dtype)
    return pixels[low] * (1 - part) + pixels[(low + 1).clamp(max=length - 1)] * part


class _Conv(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size, stride: int = 1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def _row(in_channels: int, out_channels: int, length: int) -> _Conv:
    return _Conv(in_channels, out_channels, (1, length), padding=(0, length // 2))


def _column(in_channels: int, out_channels: int, length: int) -> _Conv:
    return _Conv(in_channels, out_channels, (length, 1), padding=(length // 2, 0))


def _average_pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _maximum_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


class _MixedA(nn.Module):
    def __init__(self, channels: int, pool_channels: int):
        super().__init__()
        self.branch1x1 = _Conv(channels, 64, 1)
        self.branch5x5_1 = _Conv(channels, 48, 1)
        self.branch5x5_2 = _Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = _Conv(channels, 64, 1)
        self.branch3x3dbl_2 = _Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, padding=1)
        self.branch_pool = _Conv(channels, pool_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        five = self.branch5x5_2(self.branch5x5_1(x))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(_average_pool(x))], 1)


class _MixedB(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.branch3x3 = _Conv(channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = _Conv(channels, 64, 1)
        self.branch3x3dbl_2 = _Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, stride=2)], 1)


class _MixedC(nn.Module):
    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.branch1x1 = _Conv(channels, 192, 1)
        self.branch7x7_1 = _Conv(channels, inner, 1)
        self.branch7x7_2 = _row(inner, inner, 7)
        self.branch7x7_3 = _column(inner, 192, 7)
        self.branch7x7dbl_1 = _Conv(channels, inner, 1)
        self.branch7x7dbl_2 = _column(inner, inner, 7)
        self.branch7x7dbl_3 = _row(inner, inner, 7)
        self.branch7x7dbl_4 = _column(inner, inner, 7)
        self.branch7x7dbl_5 = _row(inner, 192, 7)
        self.branch_pool = _Conv(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_average_pool(x))], 1)


class _MixedD(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.branch3x3_1 = _Conv(channels, 192, 1)
        self.branch3x3_2 = _Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1 = _Conv(channels, 192, 1)
        self.branch7x7x3_2 = _row(192, 192, 7)
        self.branch7x7x3_3 = _column(192, 192, 7)
        self.branch7x7x3_4 = _Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        three = self.branch3x3_2(self.branch3x3_1(x))
        return torch.cat([three, self.branch7x7x3_4(seven), F.max_pool2d(x, 3, stride=2)], 1)


class _MixedE(nn.Module):
    def __init__(self, channels: int, pool):
        super().__init__()
        self.pool = pool
        self.branch1x1 = _Conv(channels, 320, 1)
        self.branch3x3_1 = _Conv(channels, 384, 1)
        self.branch3x3_2a = _row(384, 384, 3)
        self.branch3x3_2b = _column(384, 384, 3)
        self.branch3x3dbl_1 = _Conv(channels, 448, 1)
        self.branch3x3dbl_2 = _Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = _row(384, 384, 3)
        self.branch3x3dbl_3b = _column(384, 384, 3)
        self.branch_pool = _Conv(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [self.branch1x1(x), self.branch3x3_2a(three), self.branch3x3_2b(three)]
        parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([*parts, self.branch_pool(self.pool(x))], 1)
