"""The use of codebooks, by hand."""

import math

import pytest
import torch

from vistok.evaluation import CodebookUsage, usage
from vistok.evaluation.usage import QUEUE, RecentUsage


def test_usage_of_several_codebooks_over_several_batches():
    counts = CodebookUsage(codebook_size=4, num_codebooks=2)
    counts.update(torch.tensor([[[0, 0], [1, 2]]]))
    counts.update(torch.tensor([[[0, 0], [3, 3]]]))
    # First codebook: entry 0 alone. Second: 1, 2, 3, 3 -> entropy 1.5 bits.
    result = counts.compute()
    assert result["codebook_usage"] == 4 / 8
    assert result["dead_entries"] == 4
    assert result["codebook_perplexity"] == pytest.approx((1 + 2**1.5) / 2)


def test_usage_of_a_codebook_too_large_to_tabulate():
    counts = CodebookUsage(codebook_size=2**40)
    counts.update(torch.tensor([[2**40 - 1, 5, 5, 5]]))
    counts.update(torch.tensor([[2**39, 5, 5, 5]]))
    result = counts.compute()
    assert result["codebook_usage"] == 3 / 2**40
    assert result["codebook_perplexity"] == pytest.approx(
        math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(8))
    )


@pytest.mark.parametrize("codebook_size", [8, 2**40])
def test_padding_is_not_counted(codebook_size: int):
    mask = torch.tensor([[True, True, False]])
    result = usage(torch.tensor([[3, 3, 5]]), codebook_size, mask=mask)
    assert result["codebook_usage"] == 1 / codebook_size
    assert result["codebook_perplexity"] == 1
    assert result["dead_entries"] == codebook_size - 1
    several = usage(torch.tensor([[[3, 3, 5], [1, 2, 5]]]), codebook_size, num_codebooks=2, mask=mask)
    assert several["codebook_usage"] == 3 / 2 / codebook_size
    assert several["codebook_perplexity"] == 1.5


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (torch.tensor([[1, -1]]), r"-1 at position \[0, 1\]"),
        (torch.tensor([[8, 1]]), r"8 at position \[0, 0\]"),
        (torch.tensor([[0.5]]), "integer tokens"),
    ],
)
def test_what_is_no_token_is_named(tokens: torch.Tensor, text: str):
    with pytest.raises(ValueError, match=text):
        usage(tokens, 8)
    with pytest.raises(ValueError, match="shape"):
        usage(torch.zeros(1, 2, 3, dtype=torch.int64), 8, num_codebooks=3)


def test_the_histogram_counts_entries_by_how_often_they_are_used():
    counts = CodebookUsage(codebook_size=4)
    counts.update(torch.tensor([0] * 14 + [1] + [2]))  # 3.5, 1/4, 1/4 times as often as alike, and never
    (codebook,) = counts.each_codebook()
    assert codebook["histogram"] == [1 / 4, 0, 2 / 4, 0, 0, 0, 1 / 4, 0, 0]
    assert codebook["entries"] == 4


def test_each_codebook_has_its_own_numbers():
    counts = CodebookUsage(codebook_size=2, num_codebooks=2)
    counts.update(torch.tensor([[[0, 0], [0, 1]]]))
    assert [one["usage"] for one in counts.each_codebook()] == [0.5, 1.0]
    assert [one["dead_entries"] for one in counts.each_codebook()] == [1, 0]


@pytest.mark.parametrize("batch_size", [1, 7, 300])
def test_recent_usage_sees_the_last_tokens_only(batch_size: int):
    # 300 pictures of 256 tokens: the queue holds the last 256 of them. Picture i has the token i alone.
    recent = RecentUsage(codebook_size=1000)
    for rows in torch.arange(300).split(batch_size):
        recent.update(rows, rows.view(-1, 1, 1).expand(-1, 16, 16))
    assert recent.compute() == 256 / 1000


def test_recent_usage_cuts_a_picture_in_two_where_the_queue_ends():
    recent = RecentUsage(codebook_size=2**20)
    tokens = torch.arange(2 * 40000).view(2, 40000)
    recent.update(torch.arange(2), tokens)
    assert recent.compute() == QUEUE / 2**20


def test_recent_usage_of_several_codebooks_is_their_mean():
    recent = RecentUsage(codebook_size=8, num_codebooks=2)
    recent.update(torch.tensor([0]), torch.tensor([[[0, 0, 0, 0], [1, 2, 3, 4]]]))
    assert recent.compute() == (1 / 8 + 4 / 8) / 2
