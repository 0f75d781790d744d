import math

import numpy as np
import pytest
import torch

from vistok.demo.reconstruction import decode, quality, reconstruct


@pytest.mark.parametrize("name", ["grid", "large", "table", "residual", "transport", "scales", "sequence"])
def test_tokens_give_the_reconstruction_again(tokenizers, photograph, name):
    result = reconstruct(tokenizers[name], photograph, tokenizers[name].sizes[0])
    width, height = result.picture.size
    again = decode(tokenizers[name], result.tokens, height, width)
    assert np.abs(np.asarray(again, int) - np.asarray(result.picture, int)).max() <= 1


def test_numbers_are_those_of_the_tokens(tokenizers, photograph):
    result = reconstruct(tokenizers["residual"], photograph, 128)
    numbers = result.numbers
    assert result.tokens.shape == (3, 32, 48)
    assert numbers["tokens"] == 3 * 32 * 48
    assert numbers["bits_per_pixel"] == pytest.approx(3 * 32 * 48 * 4 / (128 * 192))
    assert numbers["entries_used"] == sum(len(np.unique(one)) for one in result.tokens)
    assert 0 < numbers["seconds"] < 60
    assert numbers["psnr"] == quality(result.original, result.picture)["psnr"]


def test_equal_pictures_have_infinite_psnr(photograph):
    assert quality(photograph, photograph) == {"psnr": math.inf, "ssim": pytest.approx(1)}


def test_a_tokenizer_without_tokens_has_the_other_numbers(tokenizers, photograph):
    result = reconstruct(tokenizers["continuous"], photograph, 32)
    assert result.tokens is None
    assert result.numbers.keys() == {"psnr", "ssim", "seconds"}


def test_the_first_codebooks_decode_alone(tokenizers, photograph):
    tokenizer = tokenizers["residual"]
    tokens = reconstruct(tokenizer, photograph, 32).tokens
    with torch.no_grad():
        expected = tokenizer.model.decode(torch.from_numpy(tokens)[None], 1)[0]
    picture = torch.from_numpy(np.array(decode(tokenizer, tokens, num_codebooks=1))).permute(2, 0, 1)
    assert (picture / 127.5 - 1 - expected.clamp(-1, 1)).abs().max() < 0.005


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ([1, 2], "rank 3"),
        ([[1000]], r"\[0, 1000\), got 1000"),
        ([[0.5]], "integer tokens"),
        ([[-1]], "got -1"),
    ],
)
def test_wrong_tokens_are_refused_in_the_librarys_words(tokenizers, tokens, said):
    model = tokenizers["grid"].model
    with pytest.raises(ValueError, match=said) as ours:
        decode(tokenizers["grid"], np.array(tokens))
    with pytest.raises(ValueError, match=said) as librarys:
        model.decode(torch.as_tensor(np.array(tokens))[None])
    assert str(ours.value) == str(librarys.value)
