import pytest
import torch

from vistok.demo.entries import entry, neighbours

LEVELS = [8, 5, 5, 5]


def digits(token, levels):
    found = []
    for level in levels:
        found.append(token % level)
        token //= level
    return found


def test_neighbours_in_a_grid_are_one_step_away_in_one_channel(tokenizers):
    token = 4 + 8 * (2 + 5 * (0 + 5 * 4))  # inside in two channels, at a border in two
    found = neighbours(tokenizers["grid"], 0, token)
    steps = [
        [b - a for a, b in zip(digits(token, LEVELS), digits(other, LEVELS), strict=True)] for other in found
    ]
    expected = [[1, 0, 0, 0], [-1, 0, 0, 0], [0, 1, 0, 0], [0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, -1]]
    assert sorted(steps) == sorted(expected)
    assert [abs(step[0]) for step in steps[:2]] == [1, 1]  # the finest channel's are the nearest


def test_neighbours_of_bits_differ_in_one_bit(tokenizers):
    assert sorted(neighbours(tokenizers["bits"], 0, 0b101100)) == sorted(
        0b101100 ^ 1 << bit for bit in range(6)
    )


def test_neighbours_are_found_without_a_table_of_all_entries(tokenizers):
    tokenizer = tokenizers["large"]  # 2^48 entries
    token = tokenizer.model.codebook_size // 3
    found = neighbours(tokenizer, 0, token, count=32)
    apart = [
        sum(a != b for a, b in zip(digits(token, [8] * 16), digits(one, [8] * 16), strict=True))
        for one in found
    ]
    assert len(found) > 16
    assert set(apart) == {1}


@pytest.mark.parametrize("name", ["table", "sequence", "scales"])
def test_neighbours_in_a_table_are_the_nearest(tokenizers, name):
    table = tokenizers[name].model.quantizer.codebook.detach()
    order = (table - table[3]).square().sum(1).argsort().tolist()
    assert neighbours(tokenizers[name], 0, 3, count=5) == order[1:6]


@pytest.mark.parametrize("name", ["residual", "transport"])
def test_each_codebook_has_its_own_entries(tokenizers, name):
    quantizer = tokenizers[name].model.quantizer
    vectors = quantizer.quantizer(1).vectors(torch.tensor([3]))[0]
    assert entry(tokenizers[name], 1, 3) == vectors.tolist()
    assert 3 not in neighbours(tokenizers[name], 1, 3)


def test_an_entry_is_what_the_token_stands_for(tokenizers):
    assert entry(tokenizers["grid"], 0, 0) == [-1.0, -1.0, -1.0, -1.0]
