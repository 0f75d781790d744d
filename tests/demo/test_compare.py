import pytest

from vistok.demo.compare import common_size


def test_all_see_the_size_that_was_asked_for(tokenizers):
    assert common_size([tokenizers["grid"], tokenizers["table"]], 256) == (256, False)


def test_the_nearest_common_size_is_taken_and_squares_make_squares(tokenizers):
    assert common_size([tokenizers["grid"], tokenizers["scales"]], 256) == (32, True)


def test_without_a_common_size_they_are_refused(tokenizers):
    with pytest.raises(ValueError, match="no size in common: scales takes 32; sequence takes 40"):
        common_size([tokenizers["scales"], tokenizers["sequence"]], 32)
