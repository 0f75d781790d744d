"""Pictures of tokens and sheets to judge a tokenizer by."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vistok import draw_sheet, draw_tokens
from vistok.visualization import draw_close_up, draw_difference, mark_places


def colours(tokens: torch.Tensor, codebook_size: int) -> np.ndarray:
    return np.asarray(draw_tokens(tokens, codebook_size, scale=1)).astype(int)


def test_each_token_is_one_square_of_its_colour():
    tokens = torch.arange(6).view(2, 3)
    drawn = np.asarray(draw_tokens(tokens, 6, scale=5))
    assert drawn.shape == (10, 15, 3)
    for row in range(2):
        for column in range(3):
            square = drawn[row * 5 : row * 5 + 5, column * 5 : column * 5 + 5]
            assert (square == colours(tokens, 6)[row, column]).all()


@given(st.integers(0, 2**62 - 1))
def test_a_colour_depends_on_nothing_but_the_token(token: int):
    alone = colours(torch.tensor([[token]]), 2**62)[0, 0]
    among = colours(torch.tensor([[0, 5, token]]), token + 6)[0, 2]
    np.testing.assert_array_equal(alone, among)
    np.testing.assert_array_equal(alone, colours(torch.tensor([[token]], dtype=torch.int64), token + 1)[0, 0])


def test_colours_are_the_same_in_every_release():
    # Sheets of different runs are compared by eye: whoever changes the colours changes them for everybody.
    tokens = torch.tensor([[0, 1, 4095, 2**40 + 1]])
    assert colours(tokens, 2**62)[0].tolist() == [
        [140, 91, 91],
        [29, 62, 142],
        [223, 51, 207],
        [190, 110, 154],
    ]


@pytest.mark.parametrize("start", [0, 10**6, 2**53, 2**62 - 256])
def test_neighbouring_tokens_are_told_apart(start: int):
    drawn = colours(start + torch.arange(256).view(16, 16), 2**62).reshape(-1, 3)
    assert len(np.unique(drawn, axis=0)) >= 255
    assert np.abs(np.diff(drawn, axis=0)).sum(axis=1).min() > 60


def test_colours_are_never_white_or_black():
    drawn = colours(torch.arange(4096).view(64, 64), 4096)
    assert (drawn.max(axis=-1) - drawn.min(axis=-1)).min() > 30
    assert drawn.max(axis=-1).min() > 120


def test_codebooks_stand_side_by_side():
    tokens = torch.arange(24).view(3, 2, 4)
    drawn = np.asarray(draw_tokens(tokens, 24, scale=10))
    assert drawn.shape == (20, 3 * 40 + 2 * 5, 3)
    for codebook in range(3):
        left = codebook * 45
        np.testing.assert_array_equal(
            drawn[:, left : left + 40], np.asarray(draw_tokens(tokens[codebook], 24, 10))
        )
    assert (drawn[:, 40:45] == 255).all()


def test_a_sequence_is_drawn_row_by_row():
    drawn = colours(torch.arange(7), 7)
    assert drawn.shape == (3, 3, 3)
    np.testing.assert_array_equal(drawn.reshape(9, 3)[:7], colours(torch.arange(7).view(1, 7), 7)[0])
    assert (drawn.reshape(9, 3)[7:] == 255).all()


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_integers_of_every_kind_are_tokens(dtype: torch.dtype):
    tokens = torch.arange(12).view(3, 4)
    np.testing.assert_array_equal(colours(tokens.to(dtype), 12), colours(tokens, 12))
    np.testing.assert_array_equal(colours(tokens.numpy(), 12), colours(tokens, 12))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.tensor([[0, 1], [9, 8]]), r"\[0, 8\), got 9 at \(1, 0\)"),
        (torch.tensor([[-1]]), r"got -1 at \(0, 0\)"),
        (torch.zeros(2, 2), "integer"),
        (torch.zeros(2, 2, 2, 2, dtype=torch.int64), r"pass tokens\[0\]"),
        (torch.zeros(0, dtype=torch.int64), "integer"),
    ],
)
def test_what_are_no_tokens_raises(tokens: torch.Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        draw_tokens(tokens, 8)


def test_a_scale_below_one_raises():
    with pytest.raises(ValueError, match="scale"):
        draw_tokens(torch.zeros(2, 2, dtype=torch.int64), 8, scale=0)


def test_a_sheet_holds_what_it_is_given():
    originals = torch.full((2, 3, 64, 64), -1.0)
    reconstructions = torch.full((2, 3, 64, 64), 0.5)
    tokens = torch.arange(128).view(2, 8, 8)
    sheet = draw_sheet(originals, reconstructions, tokens, 128)
    present = {colour for _, colour in sheet.getcolors(maxcolors=10**6)}
    assert {(255, 255, 255), (0, 0, 0), (191, 191, 191)} <= present
    assert {tuple(colour) for colour in colours(tokens[1], 128).reshape(-1, 3).tolist()} <= present
    pixels = np.asarray(sheet)
    assert (pixels == 0).all(axis=-1).sum() == 2 * 256 * 256  # enlarged fourfold
    assert (pixels[:8] == 255).all() and (pixels[:, :8] == 255).all() and (pixels[-8:] == 255).all()


def test_pil_pictures_and_pixel_values_give_the_same_sheet():
    pixel_values = torch.randint(0, 256, (1, 3, 16, 16)).float() / 127.5 - 1
    pictures = [
        Image.fromarray(((p + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy())
        for p in pixel_values
    ]
    tokens = torch.zeros(1, 4, 4, dtype=torch.int64)
    one = draw_sheet(pixel_values, pixel_values, tokens, 8)
    other = draw_sheet(pictures, pictures, tokens, 8)
    np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("shape", [(32,), (16, 16), (8, 12), (3, 16, 16), (8, 32, 32), (680,)])
@pytest.mark.parametrize("size", [(40, 40), (300, 200), (1000, 30)])
def test_any_shape_fits_on_a_sheet(shape: tuple[int, ...], size: tuple[int, int]):
    pixel_values = torch.zeros(2, 3, *size)
    sheet = draw_sheet(pixel_values, pixel_values, torch.zeros(2, *shape, dtype=torch.int64), 2**62)
    assert sheet.mode == "RGB" and sheet.width < 1200 and sheet.height < 700


def test_a_sheet_without_tokens_has_two_columns():
    pixel_values = torch.zeros(1, 3, 256, 256)
    assert draw_sheet(pixel_values, pixel_values, None, 0).width == 2 * 256 + 3 * 12


def test_numbers_that_differ_raise():
    pixel_values, tokens = torch.zeros(2, 3, 8, 8), torch.zeros(1, 2, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"\[2, 2, 1\]"):
        draw_sheet(pixel_values, pixel_values, tokens, 4)
    with pytest.raises(ValueError, match=r"\[0, 0\]"):
        draw_sheet([], [], None, 4)


def test_a_difference_is_brighter_the_larger_it_is():
    original = Image.new("RGB", (5, 1), (100, 100, 100))
    other = original.copy()
    for x, step in enumerate((0, 8, 16, 32, 64)):
        other.putpixel((x, 0), (100 + step, 100 + step, 100 + step))
    brightness = np.asarray(draw_difference(original, other, amplify=4).convert("L"))[0].tolist()
    assert brightness == sorted(set(brightness))
    assert draw_difference(original, other, amplify=4).getpixel((4, 0)) == (252, 253, 191)  # 64 x 4 > 255
    assert draw_difference(other, original, amplify=4) == draw_difference(original, other, amplify=4)


@pytest.mark.parametrize(("size", "amplify"), [((8, 9), 4), ((8, 8), 0), ((8, 8), -1)])
def test_an_impossible_difference_is_refused(size, amplify):
    with pytest.raises(ValueError, match="one size|amplify"):
        draw_difference(Image.new("RGB", (8, 8)), Image.new("RGB", size), amplify)


def test_marked_places_stay_and_one_is_framed():
    picture = Image.new("RGB", (60, 40), (200, 100, 0))
    marked = np.zeros((2, 3), bool)
    marked[0, 1] = marked[1, 2] = True
    drawn = mark_places(picture, marked, chosen=(0, 1), scale=20)
    assert picture.getpixel((30, 10)) == drawn.getpixel((30, 10)) == (200, 100, 0)
    assert drawn.getpixel((50, 30)) == (200, 100, 0)
    assert drawn.getpixel((10, 30)) == (70, 35, 0)
    assert drawn.getpixel((18, 10)) == drawn.getpixel((41, 10)) == (255, 255, 255)
    assert drawn.size == picture.size


def test_marks_beyond_the_border_are_cut_off():
    drawn = mark_places(Image.new("RGB", (30, 10), "white"), np.ones((1, 2), bool), chosen=(0, 1), scale=20)
    assert drawn.size == (30, 10)


@pytest.mark.parametrize(("middle", "first"), [((50, 50), (34, 34)), ((0, 0), (0, 0)), ((99, 99), (68, 68))])
def test_a_close_up_stays_within_the_picture(middle, first):
    y, x = np.mgrid[:100, :100].astype(np.uint8)
    picture = Image.fromarray(np.stack([x, y, x * 0], -1))
    drawn = draw_close_up([picture, picture.rotate(180)], middle, side=32, scale=3)
    assert drawn.size == (2 * 96 + 6, 96)
    assert drawn.getpixel((0, 0))[:2] == first
    assert drawn.getpixel((98, 50)) == (255, 255, 255)  # the gap


def test_a_close_up_of_a_small_picture_is_all_of_it():
    assert draw_close_up([Image.new("RGB", (20, 10))], (5, 5), scale=2).size == (40, 20)
