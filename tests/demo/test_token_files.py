import io
import json
import struct

import numpy as np
import pytest

from vistok.demo import token_files
from vistok.demo.reconstruction import reconstruct
from vistok.demo.token_files import TokenFileError, read_tokens


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def claiming(shape: tuple[int, ...], dtype: str = "<i8", content: bytes = b"") -> bytes:
    header = str({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


@pytest.mark.parametrize("name", ["grid", "residual", "sequence"])
def test_what_is_taken_away_comes_back(tokenizers, photograph, name):
    result = reconstruct(tokenizers[name], photograph, tokenizers[name].sizes[0])
    width, height = result.original.size
    file = read_tokens(token_files.as_json(result))
    assert (file.tokenizer, file.height, file.width) == (name, height, width)
    assert np.array_equal(file.tokens, result.tokens)
    assert np.array_equal(read_tokens(token_files.as_npy(result.tokens)).tokens, result.tokens)


def test_plain_lists_will_do():
    assert read_tokens(b"[[1, 2], [3, 4]]").tokens.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "neither .npy nor JSON"),
        (b"\xff\xd8\xff", "neither .npy nor JSON"),
        (b"[" * 100_000, "neither .npy nor JSON"),
        (b'{"picture": 1}', 'no "tokens"'),
        (b'{"tokens": [1], "height": -5}', "height must be a whole number"),
        (b'{"tokens": [1], "width": "1"}', "width must be a whole number"),
        (b'["<script>"]', 'whole numbers below 2^63, got "<script>"'),
        (b"[18446744073709551615]", "whole numbers below 2^63"),
        (b"[[1], [2, 3]]", "ragged"),
        (b"null", "got null"),
        (npy(np.array(["a"])), "got <U1"),
        (npy(np.array([1j])), "got complex128"),
        (claiming((10**12,)), "does not hold the numbers of shape (1000000000000,)"),
        (claiming((4,), content=bytes(16)), "does not hold"),
        (claiming((1,), "|O", bytes(8)), "does not hold"),
        (b"\x93NUMPY\x09\x00", "no header"),
        (b"\x93NUMPY\x01\x00\xff\xff", "no header"),
        (bytes(token_files.MAX_BYTES + 1), "the limit is"),
    ],
)  # fmt: skip
def test_other_files_are_refused_in_one_sentence(data, said):
    with pytest.raises(TokenFileError) as refused:
        read_tokens(data)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 200


def test_arrays_of_objects_are_never_unpickled():
    with pytest.raises(TokenFileError, match="does not hold"):
        read_tokens(npy(np.array([{"a": 1}], dtype=object)))


def test_more_tokens_than_a_page_should_compute_are_refused(tokenizers):
    most = token_files.MOST_PIXELS // 16
    token_files.check_amount(tokenizers["grid"], np.zeros((most // 64, 64), int))
    with pytest.raises(TokenFileError, match="at most 65,536 tokens"):
        token_files.check_amount(tokenizers["grid"], np.zeros((most // 64 + 1, 64), int))
    with pytest.raises(TokenFileError, match="none"):
        token_files.check_amount(tokenizers["grid"], np.zeros((0, 4), int))


def test_json_is_plain(tokenizers, photograph):
    content = json.loads(token_files.as_json(reconstruct(tokenizers["grid"], photograph, 32)))
    assert content.keys() == {"tokenizer", "height", "width", "tokens"}
