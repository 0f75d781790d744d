import numpy as np
import pytest

from vistok.demo.token_map import TokenMap


@pytest.fixture
def grid(tokenizers):
    return TokenMap.of(tokenizers["grid"], np.array([[5, 6, 7], [6, 5, 6]]))


def test_a_grid_is_drawn_as_it_is(grid):
    assert (grid.rows, grid.columns, grid.places, grid.factor) == (2, 3, 6, 4)
    assert grid.place(1, 2) == 5
    assert grid.row_and_column(5) == (1, 2)
    assert grid.token(0, 3) == 6


@pytest.mark.parametrize(("row", "column", "place"), [(-3, 0, 0), (9, 9, 5), (0, 99, 2)])
def test_a_place_outside_becomes_the_nearest(grid, row, column, place):
    assert grid.place(row, column) == place


def test_the_same_tokens_are_found(grid):
    assert grid.same(0, 1).tolist() == [[False, True, False], [True, False, True]]


def test_replacement_here_or_everywhere(grid):
    assert grid.replaced(0, 1, 9)[0].tolist() == [[5, 9, 7], [6, 5, 6]]
    assert grid.replaced(0, 1, 9, everywhere=True)[0].tolist() == [[5, 9, 7], [9, 5, 9]]
    assert grid.tokens[0].tolist() == [[5, 6, 7], [6, 5, 6]]


def test_a_sequence_is_drawn_in_rows_and_has_no_place_in_the_picture(tokenizers):
    sequence = TokenMap.of(tokenizers["sequence"], np.arange(6))
    assert (sequence.rows, sequence.columns, sequence.factor) == (2, 3, None)
    seven = TokenMap.of(tokenizers["sequence"], np.array([1, 1, 1, 1, 1, 1, 1]))
    assert seven.same(0, 0).sum() == 7  # of nine places drawn
    assert seven.place(2, 2) == 6


def test_scales_follow_one_another(tokenizers):
    scales = TokenMap.of(tokenizers["scales"], np.arange(21))
    assert [scales.scale(place) for place in (0, 3, 20)] == [(1, 0, 0), (2, 1, 0), (4, 3, 3)]
    assert TokenMap.of(tokenizers["sequence"], np.arange(6)).scale(3) is None


def test_codebooks_are_looked_at_one_by_one(tokenizers):
    several = TokenMap.of(tokenizers["residual"], np.arange(12).reshape(3, 2, 2))
    assert several.token(2, 1) == 9
    assert several.replaced(2, 1, 0)[:2].tolist() == np.arange(8).reshape(2, 2, 2).tolist()
