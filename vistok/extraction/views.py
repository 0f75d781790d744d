"""The views of a picture that become tokens: its centre, also mirrored, ten crops, or its aspect's bucket.

Ten crops are those of AlexNet (Krizhevsky et al., NeurIPS 2012) in torchvision's order, which LlamaGen and
RAR train on: top left, top right, bottom left, bottom right, centre, then the same five of the mirrored
picture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..data import CROPS

VIEWS = {
    "center": ("center",),
    "flip": ("center", "center_flipped"),
    "ten_crop": tuple(
        f"{place}{flipped}"
        for flipped in ("", "_flipped")
        for place in ("top_left", "top_right", "bottom_left", "bottom_right", "center")
    ),
}
FIXED_CROPS = ("adm_crop", "center_crop")  # those of CROPS that draw nothing


@dataclass(frozen=True)
class Views:
    """Picture -> uint8 pixels of each view.

    Args:
        resolution: Height and width in pixels.
        kind: A key of `VIEWS`.
        crop: `"adm_crop"`, as in ADM, LlamaGen and RAR, or `"center_crop"`.
        crop_range: Ten crops are cut from a square of `int(resolution * crop_range)` pixels.
        buckets: Heights and widths in pixels; a picture goes to the one whose aspect is nearest its own, and
            is resized to cover it and cut at the centre. Instead of a square; not with ten crops.

    Raises:
        ValueError: A value is out of range or does not go with another.

    Example:
        >>> views = Views(64, "ten_crop", crop_range=1.1)
        >>> views(Image.new("RGB", (100, 80))).shape, views.names[5]
        ((10, 64, 64, 3), 'top_left_flipped')
    """

    resolution: int
    kind: str = "center"
    crop: str = "adm_crop"
    crop_range: float = 1.1
    buckets: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.resolution < 1:
            raise ValueError(f"resolution must be at least 1 pixel, got {self.resolution}")
        if self.kind not in VIEWS:
            raise ValueError(f"views must be one of {', '.join(VIEWS)}, got {self.kind!r}")
        if self.crop not in FIXED_CROPS:
            raise ValueError(f"crop must be one of {', '.join(FIXED_CROPS)}, got {self.crop!r}")
        if not 1 <= self.crop_range <= 4:
            raise ValueError(f"crop_range must be in [1, 4], got {self.crop_range}")
        if self.buckets and self.kind == "ten_crop":
            raise ValueError("buckets take the views center or flip, not ten_crop")
        if any(min(bucket) < 1 for bucket in self.buckets):
            raise ValueError(f"buckets must be heights and widths of at least 1 pixel, got {self.buckets}")

    @property
    def names(self) -> tuple[str, ...]:
        """The views in their order."""
        return VIEWS[self.kind]

    def describe(self) -> dict[str, Any]:
        """All that decides about pixels, as plain values for a plan."""
        described: dict[str, Any] = {
            "resolution": self.resolution,
            "views": list(self.names),
            "crop": self.crop,
            "resize_filter": "box halvings, then bicubic" if self.crop == "adm_crop" else "bicubic",
            "colours": "upright RGB, transparency over white, first frame",
        }
        if self.kind == "ten_crop":
            described["crop_range"] = self.crop_range
        if self.buckets:
            described |= {"crop": "cover", "resize_filter": "bicubic"}
            described["buckets"] = [list(bucket) for bucket in self.buckets]
        return described

    @classmethod
    def from_description(cls, described: dict[str, Any]) -> "Views":
        """The views that `describe` described."""
        kind = next(kind for kind, names in VIEWS.items() if list(names) == described["views"])
        buckets = tuple((height, width) for height, width in described.get("buckets", ()))
        crop = described["crop"] if not buckets else FIXED_CROPS[0]
        return cls(described["resolution"], kind, crop, described.get("crop_range", 1.1), buckets)

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Return uint8 `(V, H, W, 3)` of a picture in mode RGB; all pictures of a bucket have one H and W."""
        if self.kind == "ten_crop":
            side = int(self.resolution * self.crop_range)
            return ten_crops(np.asarray(CROPS[self.crop](image, side, None)), self.resolution)
        if self.buckets:
            pixels = np.asarray(cover(image, *nearest_bucket(image.size, self.buckets)))
        else:
            pixels = np.asarray(CROPS[self.crop](image, self.resolution, None))
        return np.stack([pixels, pixels[:, ::-1]]) if self.kind == "flip" else pixels[None]


def ten_crops(pixels: np.ndarray, side: int) -> np.ndarray:
    """Corners and centre of a picture, then of the picture mirrored.

    Args:
        pixels: `(H, W, 3)`, at least `side` high and wide.
        side: Height and width of a crop.

    Returns:
        `(10, side, side, 3)`.
    """
    height, width = pixels.shape[:2]
    bottom, right = height - side, width - side
    # Python's `round`, half to even, as in torchvision: 12 of 12.5.
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))]
    return np.stack(
        [
            picture[top : top + side, left : left + side]
            for picture in (pixels, pixels[:, ::-1])
            for top, left in places
        ]
    )


def nearest_bucket(size: tuple[int, int], buckets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The bucket (height, width) nearest in aspect to a picture's (width, height); the first of equals."""
    aspect = math.log(size[0] / size[1])
    return min(buckets, key=lambda bucket: abs(math.log(bucket[1] / bucket[0]) - aspect))


def cover(image: Image.Image, height: int, width: int) -> Image.Image:
    """Resize a picture so that it just covers height x width, and cut out the centre."""
    scale = max(height / image.height, width / image.width)
    size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    image = image.resize(size, Image.Resampling.BICUBIC)
    return image.crop((left, top, left + width, top + height))
