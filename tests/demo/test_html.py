import re

import numpy as np
import pytest
from PIL import Image

from vistok.demo import html
from vistok.demo.reconstruction import reconstruct
from vistok.demo.token_map import TokenMap
from vistok.demo.tokenizers import Tokenizer, tokenizer


@pytest.fixture(scope="module")
def shown(tokenizers, photograph):
    return reconstruct(tokenizers["grid"], photograph, 128)


def text(markup: str) -> str:
    return " ".join(re.sub("<[^>]+>", " ", markup).split())


def test_numbers_are_shown(tokenizers, shown):
    said = text(html.numbers(tokenizers["grid"], shown))
    assert f"{shown.numbers['psnr']:.2f} dB PSNR" in said
    assert "1,536 tokens: 32×48" in said
    assert f"{shown.numbers['entries_used']} / 1,000 entries used" in said


def test_what_comes_from_outside_is_escaped(models, photograph):
    evil = tokenizer("<script>alert(1)</script>", models["sequence"])
    result = reconstruct(evil, photograph)
    for markup in (html.what_was_computed(evil, result), html.compared([evil], [result])):
        assert "<script>" not in markup
        assert "&lt;script&gt;" in markup


def test_the_histogram_counts_every_token(tokenizers, shown):
    markup = html.histogram(tokenizers["grid"], shown.tokens)
    tokens, counts = np.unique(shown.tokens, return_counts=True)
    assert f"{len(tokens)} of 1,000 entries are used" in text(markup)
    assert f"most used: {counts.max():,}×" in text(markup)
    assert markup.count("<rect") == min(96, len(tokens))


def test_each_codebook_has_its_histogram(tokenizers, photograph):
    markup = html.histogram(
        tokenizers["residual"], reconstruct(tokenizers["residual"], photograph, 32).tokens
    )
    assert [f"Codebook {k}: " in markup for k in (1, 2, 3, 4)] == [True, True, True, False]


def test_a_token_is_described(tokenizers):
    token_map = TokenMap.of(tokenizers["grid"], np.array([[5, 6], [6, 6]]))
    said = text(html.token_card(token_map, 0, 3, [0.5, -1.0]))
    assert "Token 6 Place row 2 of 2, column 2 of 2 Pixels 4 to 7 across, 4 to 7 down" in said
    assert "Occurs 2 times more" in said
    assert "[0.5, -1], 2 channels" in said


def test_a_token_of_a_scale_says_which(tokenizers):
    token_map = TokenMap.of(tokenizers["scales"], np.arange(21))
    said = text(html.token_card(token_map, 0, 3, [0.5]))
    assert "Pixels those around row 2, column 1 of the scale 2 × 2" in said


def test_the_best_of_each_column_is_bold(tokenizers: dict[str, Tokenizer], photograph):
    names = ["grid", "table", "continuous"]
    results = [reconstruct(tokenizers[name], photograph, 32) for name in names]
    markup = html.compared([tokenizers[name] for name in names], results)
    best = max(result.numbers["psnr"] for result in results)
    assert f"<td class=best>{best:.2f} dB</td>" in markup
    assert markup.count("class=best") == 4  # PSNR, SSIM, bits per pixel, seconds
    assert markup.count("<td>–</td>") == 4  # tokens, entries, those used and bits of the continuous one


def test_a_replacement_says_how_far_it_reaches(tokenizers, shown):
    token_map = TokenMap.of(tokenizers["grid"], shown.tokens)
    changed = np.array(shown.picture)
    changed[10:20, 30:35] ^= 1
    tokens = token_map.replaced(0, 0, 999)
    after = Image.fromarray(changed)
    said = text(html.replacement(token_map, 0, 0, tokens, shown.original, shown.picture, after))
    assert "→ 999 at 1 place" in said
    assert "all within 5 × 10 pixels" in said
