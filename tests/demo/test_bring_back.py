import numpy as np
import pytest

from vistok.demo.bring_back import decode_file
from vistok.demo.context import Context
from vistok.demo.token_files import TokenFile

TOKENS = np.zeros((8, 8), dtype=np.int64)


@pytest.fixture
def context(tokenizers):
    return Context({name: tokenizers[name] for name in ("grid", "table")}, lambda function: function)


@pytest.mark.parametrize(
    ("chosen", "named", "used"),
    [
        ("", None, "grid"),
        ("", "table", "table"),
        ("grid", "table", "grid"),
        ("table", "nobody", "table"),
        (None, "grid", "grid"),
    ],
)
def test_the_chosen_tokenizer_wins_over_the_one_that_the_tokens_name(context, chosen, named, used):
    picture, name = decode_file(context, TokenFile(TOKENS, tokenizer=named), chosen)
    assert (picture.size, name) == ((32, 32), used)


def test_tokens_of_an_unknown_tokenizer_need_a_choice(context):
    with pytest.raises(ValueError, match="the tokenizer 'nobody', which is not here: .* of grid, table"):
        decode_file(context, TokenFile(TOKENS, tokenizer="nobody"), "")
