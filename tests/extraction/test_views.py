import numpy as np
import pytest
from PIL import Image

from vistok.data import CROPS
from vistok.extraction.views import VIEWS, Views, cover, nearest_bucket, ten_crops


def photograph(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def crops_by_torchvisions_rule(image: Image.Image, side: int) -> list[np.ndarray]:
    """TenCrop as documented: four corners and the centre, then of the horizontally flipped picture."""

    def five(picture: Image.Image) -> list[Image.Image]:
        width, height = picture.size
        top, left = int(round((height - side) / 2.0)), int(round((width - side) / 2.0))
        return [
            picture.crop((0, 0, side, side)),
            picture.crop((width - side, 0, width, side)),
            picture.crop((0, height - side, side, height)),
            picture.crop((width - side, height - side, width, height)),
            picture.crop((left, top, left + side, top + side)),
        ]

    flipped = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return [np.asarray(crop) for crop in five(image) + five(flipped)]


@pytest.mark.parametrize(("side", "crop_range"), [(256, 1.1), (256, 1.05), (64, 1.1), (10, 1.3)])
def test_ten_crops_are_torchvisions(side, crop_range):
    image = photograph(40 if side == 10 else 300, 33 if side == 10 else 290)
    square = CROPS["adm_crop"](image, int(side * crop_range), None)
    assert square.size == (int(side * crop_range),) * 2
    views = Views(side, "ten_crop", crop_range=crop_range)(image)
    assert views.shape == (10, side, side, 3)
    for ours, theirs in zip(views, crops_by_torchvisions_rule(square, side), strict=True):
        assert np.array_equal(ours, theirs)


def test_the_crops_are_named_in_their_order():
    pixels = np.arange(5 * 5).reshape(5, 5, 1).repeat(3, 2)
    by_name = dict(zip(VIEWS["ten_crop"], ten_crops(pixels, 3), strict=True))
    assert by_name["top_left"][0, 0, 0] == 0
    assert by_name["top_right"][0, -1, 0] == 4
    assert by_name["bottom_left"][-1, 0, 0] == 20
    assert by_name["bottom_right"][-1, -1, 0] == 24
    assert by_name["center"][1, 1, 0] == 12
    assert by_name["top_left_flipped"][0, 0, 0] == 4  # of the mirrored picture
    assert by_name["bottom_right_flipped"][-1, -1, 0] == 20


@pytest.mark.parametrize("crop", ["adm_crop", "center_crop"])
def test_center_and_flip(crop):
    image = photograph(50, 37)
    center = np.asarray(CROPS[crop](image, 32, None))
    assert np.array_equal(Views(32, "center", crop)(image), center[None])
    assert np.array_equal(Views(32, "flip", crop)(image), np.stack([center, center[:, ::-1]]))


@pytest.mark.parametrize(
    ("size", "bucket"),
    [((100, 100), (32, 32)), ((200, 100), (24, 40)), ((100, 300), (40, 24)), ((110, 100), (32, 32))],
)
def test_a_picture_goes_to_the_bucket_of_its_aspect(size, bucket):
    buckets = ((32, 32), (24, 40), (40, 24))
    assert nearest_bucket(size, buckets) == bucket
    assert Views(32, "flip", buckets=buckets)(photograph(*size)).shape == (2, *bucket, 3)


@pytest.mark.parametrize("size", [(100, 99), (33, 500), (501, 33), (24, 40), (7, 9)])
def test_cover_keeps_the_aspect_and_the_centre(size):
    image = Image.new("RGB", size, "white")
    image.putpixel((size[0] // 2, size[1] // 2), (0, 0, 0))
    covered = np.asarray(cover(image, 24, 40)).sum(2)
    assert covered.shape == (24, 40)
    y, x = np.unravel_index(covered.argmin(), covered.shape)
    assert abs(y - 12) <= 4 and abs(x - 20) <= 4


@pytest.mark.parametrize(
    "views",
    [
        Views(64),
        Views(64, "flip", "center_crop"),
        Views(64, "ten_crop", crop_range=1.05),
        Views(64, "flip", buckets=((64, 64), (48, 96))),
    ],
)
def test_a_description_says_all(views):
    again = Views.from_description(views.describe())
    image = photograph(120, 90)
    assert np.array_equal(again(image), views(image))
    assert again.describe() == views.describe()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"resolution": 0}, "resolution must be at least 1 pixel, got 0"),
        ({"kind": "twenty"}, "got 'twenty'"),
        ({"crop": "random_crop"}, "got 'random_crop'"),
        ({"crop_range": 0.9}, "got 0.9"),
        ({"kind": "ten_crop", "buckets": ((8, 8),)}, "not ten_crop"),
        ({"buckets": ((0, 8),)}, "at least 1 pixel"),
    ],
)
def test_a_wrong_view_is_named(fields, said):
    with pytest.raises(ValueError, match=said):
        Views(**{"resolution": 16, **fields})
