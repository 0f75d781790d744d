"""The crops: exact geometry against independent transcriptions, and chance from the given generator alone."""

import math

import numpy as np
import pytest
from PIL import Image

from vistok.data import CROPS, PictureTransform
from vistok.data.samples import open_samples
from vistok.data.transforms import random_flip

SIZES = [(192, 192), (150, 97), (97, 150), (64, 64), (64, 65), (40, 30), (30, 200), (130, 128)]


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    source = open_samples("train")
    return source.read(source.num_rows - 1).decode()  # 192 x 192 of the rocket


def adm_original(pil_image: Image.Image, image_size: int) -> np.ndarray:
    """`center_crop_arr` of guided_diffusion/image_datasets.py, word for word."""
    while min(*pil_image.size) >= 2 * image_size:
        pil_image = pil_image.resize(tuple(x // 2 for x in pil_image.size), resample=Image.BOX)
    scale = image_size / min(*pil_image.size)
    pil_image = pil_image.resize(tuple(round(x * scale) for x in pil_image.size), resample=Image.BICUBIC)
    arr = np.array(pil_image)
    crop_y = (arr.shape[0] - image_size) // 2
    crop_x = (arr.shape[1] - image_size) // 2
    return arr[crop_y : crop_y + image_size, crop_x : crop_x + image_size]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resolution", [32, 33, 64])
def test_adm_crop_is_the_original(photograph, size, resolution):
    image = photograph.resize(size)
    pixels = PictureTransform(resolution, "adm_crop")(image, np.random.default_rng(0))
    assert np.array_equal(pixels, adm_original(image, resolution))


def adm_random_original(pil_image: Image.Image, image_size: int, randrange) -> np.ndarray:
    """`random_crop_arr` of guided_diffusion/image_datasets.py with its defaults, `randrange` handed in."""
    smaller_dim_size = randrange(math.ceil(image_size / 1.0), math.ceil(image_size / 0.8) + 1)
    while min(*pil_image.size) >= 2 * smaller_dim_size:
        pil_image = pil_image.resize(tuple(x // 2 for x in pil_image.size), resample=Image.BOX)
    scale = smaller_dim_size / min(*pil_image.size)
    pil_image = pil_image.resize(tuple(round(x * scale) for x in pil_image.size), resample=Image.BICUBIC)
    arr = np.array(pil_image)
    crop_y = randrange(0, arr.shape[0] - image_size + 1)
    crop_x = randrange(0, arr.shape[1] - image_size + 1)
    return arr[crop_y : crop_y + image_size, crop_x : crop_x + image_size]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resolution", [32, 33, 64])
def test_adm_random_crop_is_the_original(photograph, size, resolution):
    image = photograph.resize(size)
    transform = PictureTransform(resolution, "adm_random_crop")
    for seed in range(3):
        original = adm_random_original(image, resolution, np.random.default_rng(seed).integers)
        assert np.array_equal(transform(image, np.random.default_rng(seed)), original)


def test_adm_random_crop_keeps_80_to_100_percent_of_the_shorter_edge(photograph, monkeypatch):
    edges = []
    resize = Image.Image.resize

    def record(self, size, *rest, **more):
        edges.append(min(size))
        return resize(self, size, *rest, **more)

    image = photograph.resize((90, 64))
    monkeypatch.setattr(Image.Image, "resize", record)
    generator = np.random.default_rng(0)
    for _ in range(300):
        assert CROPS["adm_random_crop"](image, 40, generator).size == (40, 40)
    assert set(edges) == set(range(40, 51))


def test_celeba_crop_is_the_face(photograph):
    image = photograph.resize((178, 218))
    face = np.asarray(image)[121 - 64 : 121 + 64, 89 - 64 : 89 + 64]
    assert np.array_equal(PictureTransform(128, "celeba_crop")(image, np.random.default_rng(0)), face)
    smaller = np.asarray(Image.fromarray(face).resize((64, 64), Image.BILINEAR))
    assert np.array_equal(PictureTransform(64, "celeba_crop")(image, np.random.default_rng(0)), smaller)


def test_celeba_crop_refuses_other_pictures(photograph):
    message = r"celeba_crop .* 178 x 218 \(width x height\), got 218 x 178: use another crop"
    with pytest.raises(ValueError, match=message) as error:
        CROPS["celeba_crop"](photograph.resize((218, 178)), 64)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", SIZES)
def test_center_crop_is_the_centre_of_the_resized_picture(photograph, size):
    image = photograph.resize(size)
    short = min(size)
    width, height = int(64 * size[0] / short), int(64 * size[1] / short)
    whole = np.asarray(image.resize((width, height), Image.BICUBIC))
    left, top = (width - 64) // 2, (height - 64) // 2
    pixels = PictureTransform(64)(image, np.random.default_rng(0))
    assert np.array_equal(pixels, whole[top : top + 64, left : left + 64])


def test_random_crop_reaches_every_place_and_nothing_else(photograph):
    image = photograph.resize((36, 32))
    whole = np.asarray(image)
    places = [whole[:, left : left + 32].tobytes() for left in range(5)]
    generator = np.random.default_rng(0)
    drawn = [
        places.index(PictureTransform(32, "random_crop")(image, generator).tobytes()) for _ in range(200)
    ]
    assert min(np.bincount(drawn, minlength=5)) > 20


def test_random_resized_crop_covers_the_areas_and_ratios_it_promises(photograph, monkeypatch):
    boxes = []
    resize = Image.Image.resize

    def record(self, size, resample=None, box=None, **rest):
        boxes.append(box)
        return resize(self, size, resample, box, **rest)

    image = photograph.resize((160, 120))
    monkeypatch.setattr(Image.Image, "resize", record)
    generator = np.random.default_rng(0)
    for _ in range(500):
        assert CROPS["random_resized_crop"](image, 32, generator).size == (32, 32)
    sides = np.array([(right - left, bottom - top) for left, top, right, bottom in boxes])
    areas, ratios = sides.prod(1) / (160 * 120), sides[:, 0] / sides[:, 1]
    assert areas.min() > 0.19 and areas.max() <= 1.0 and areas.max() > 0.85
    assert ratios.min() > 0.73 and ratios.max() < 1.37 and abs(np.log(ratios).mean()) < 0.05
    assert all(
        left >= 0 and top >= 0 and right <= 160 and bottom <= 120 for left, top, right, bottom in boxes
    )


def test_random_resized_crop_of_a_strip_is_its_centre(photograph):
    strip = photograph.resize((400, 20))
    assert CROPS["random_resized_crop"](strip, 32, np.random.default_rng(0)).size == (32, 32)


def test_flip_mirrors_half_of_the_pictures(photograph):
    generator = np.random.default_rng(0)
    mirrored = np.asarray(photograph)[:, ::-1]
    flips = [np.array_equal(np.asarray(random_flip(photograph, generator)), mirrored) for _ in range(200)]
    assert 70 < sum(flips) < 130
    straight = PictureTransform(192)(photograph, generator)
    assert np.array_equal(straight, np.asarray(photograph))


@pytest.mark.parametrize("crop", [name for name in CROPS if name != "celeba_crop"])
@pytest.mark.parametrize("size", SIZES)
def test_every_crop_gives_the_resolution_and_follows_the_generator(photograph, crop, size):
    transform = PictureTransform(48, crop, random_flip=True)
    image = photograph.resize(size)
    first, again = (transform(image, np.random.default_rng(5)) for _ in range(2))
    assert first.shape == (48, 48, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and image.size == size


def test_names_and_sizes_out_of_range():
    with pytest.raises(ValueError, match="crop must be one of center_crop, .*, got 'middle'"):
        PictureTransform(64, "middle")
    with pytest.raises(ValueError, match="resolution must be at least 1 pixel, got 0"):
        PictureTransform(0)
