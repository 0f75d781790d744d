"""Crops by name: a PIL picture of any size becomes a square of uint8 pixels.

Chance comes from the caller's generator and from nothing else, so a picture's augmentation can be keyed by
seed, epoch and row. `adm_crop` and `adm_random_crop` are those of ADM (Diffusion Models Beat GANs on Image
Synthesis, arXiv:2105.05233, `guided_diffusion/image_datasets.py`): LlamaGen and OptVQ evaluate with the
first, LlamaGen and visual-tokenizer-pytorch train with the second.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

Crop = Callable[[Image.Image, int, np.random.Generator], Image.Image]

AREA_RANGE = (
    0.2,
    1.0,
)  # of random_resized_crop: OptVQ's; torchvision's 0.08 suits classifiers, not reconstruction
RATIO_RANGE = (3 / 4, 4 / 3)
ADM_CROP_FRACTION = 0.8  # the least share of the shorter edge that adm_random_crop keeps
CELEBA_SIZE = (178, 218)  # width and height of an aligned picture
CELEBA_FACE = (25, 57, 153, 185)  # 128 pixels around (89, 121), StyleGAN's `dataset_tool.py` and others'
RESIZED_CROP_TRIES = 10  # then the largest centred region whose ratio is in range, as in torchvision


def center_crop(image: Image.Image, size: int, generator: np.random.Generator | None = None) -> Image.Image:
    """Resize the shorter edge to `size` and cut out the centre; draws nothing."""
    image = _resize_shorter_edge(image, size)
    return _cut(image, (image.width - size) // 2, (image.height - size) // 2, size)


def random_crop(image: Image.Image, size: int, generator: np.random.Generator) -> Image.Image:
    """Resize the shorter edge to `size` and cut out a place drawn along the longer one."""
    image = _resize_shorter_edge(image, size)
    left = int(generator.integers(image.width - size + 1))
    top = int(generator.integers(image.height - size + 1))
    return _cut(image, left, top, size)


def random_resized_crop(image: Image.Image, size: int, generator: np.random.Generator) -> Image.Image:
    """Cut out a region of 20 to 100 % of the area and a ratio of 3:4 to 4:3, and resize it."""
    width, height = image.size
    low, high = math.log(RATIO_RANGE[0]), math.log(RATIO_RANGE[1])
    for _ in range(RESIZED_CROP_TRIES):
        area = width * height * generator.uniform(*AREA_RANGE)
        ratio = math.exp(generator.uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(generator.integers(width - w + 1)), int(generator.integers(height - h + 1))
            break
    else:
        w = max(1, min(width, round(height * RATIO_RANGE[1])))
        h = max(1, min(height, round(width / RATIO_RANGE[0])))
        left, top = (width - w) // 2, (height - h) // 2
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + w, top + h))


def adm_crop(image: Image.Image, size: int, generator: np.random.Generator | None = None) -> Image.Image:
    """Halve by a box filter while the shorter edge is at least `2 * size`, resize it, cut out the centre.

    Draws nothing. The geometry is ADM's to the pixel: published rFID figures depend on it.
    """
    image = _adm_resize(image, size)
    return _cut(image, (image.width - size) // 2, (image.height - size) // 2, size)


def adm_random_crop(image: Image.Image, size: int, generator: np.random.Generator) -> Image.Image:
    """As `adm_crop`, but the shorter edge becomes `size` to `size / 0.8`, and the place is drawn too."""
    image = _adm_resize(image, int(generator.integers(size, math.ceil(size / ADM_CROP_FRACTION) + 1)))
    top = int(generator.integers(image.height - size + 1))
    left = int(generator.integers(image.width - size + 1))
    return _cut(image, left, top, size)


def celeba_crop(image: Image.Image, size: int, generator: np.random.Generator | None = None) -> Image.Image:
    """Cut the face out of an aligned picture of CelebA and resize it; draws nothing.

    Raises:
        ValueError: the picture is not 178 pixels wide and 218 high, so that the face is elsewhere.
    """
    if image.size != CELEBA_SIZE:
        raise ValueError(
            "celeba_crop takes the aligned pictures of CelebA, {} x {} (width x height), got {} x {}: "
            "use another crop".format(*CELEBA_SIZE, *image.size)
        )
    # Bilinear, as in visual-tokenizer-pytorch, whose table these crops are for.
    return image.crop(CELEBA_FACE).resize((size, size), Image.Resampling.BILINEAR)


CROPS: dict[str, Crop] = {
    "center_crop": center_crop,
    "random_crop": random_crop,
    "random_resized_crop": random_resized_crop,
    "adm_crop": adm_crop,
    "adm_random_crop": adm_random_crop,
    "celeba_crop": celeba_crop,
}


def random_flip(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Mirror left and right with probability one half."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if generator.random() < 0.5 else image


@dataclass(frozen=True)
class PictureTransform:
    """Picture -> square of pixels: a crop by name, then a flip.

    `resolution`: the side in pixels. `crop`: a key of `CROPS`. `random_flip`: mirror every second picture.

    Example:
        >>> transform = PictureTransform(64, crop="random_crop", random_flip=True)
        >>> transform(Image.new("RGB", (100, 80)), np.random.default_rng(0)).shape
        (64, 64, 3)

    Raises:
        ValueError: the resolution is not positive, or the crop has no such name.
    """

    resolution: int
    crop: str = "center_crop"
    random_flip: bool = False

    def __post_init__(self) -> None:
        if self.resolution < 1:
            raise ValueError(f"resolution must be at least 1 pixel, got {self.resolution}")
        if self.crop not in CROPS:
            raise ValueError(f"crop must be one of {', '.join(CROPS)}, got {self.crop!r}")

    def __call__(self, image: Image.Image, generator: np.random.Generator) -> np.ndarray:
        """Return uint8 `(resolution, resolution, 3)` of a picture in mode RGB."""
        image = CROPS[self.crop](image, self.resolution, generator)
        if self.random_flip:
            image = random_flip(image, generator)
        return np.asarray(image)


def _resize_shorter_edge(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter edge to `size`; the longer one is truncated, as in torchvision and transformers."""
    if min(image.size) == size:
        return image
    short = min(image.size)
    return image.resize((image.width * size // short, image.height * size // short), Image.Resampling.BICUBIC)


def _adm_resize(image: Image.Image, shorter_edge: int) -> Image.Image:
    """Bring the shorter edge to a length as ADM does."""
    while min(image.size) >= 2 * shorter_edge:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = shorter_edge / min(image.size)
    # `round` here where _resize_shorter_edge truncates: ADM's own.
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def _cut(image: Image.Image, left: int, top: int, size: int) -> Image.Image:
    return image if image.size == (size, size) else image.crop((left, top, left + size, top + size))
