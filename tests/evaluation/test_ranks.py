"""Neither ranks nor batches change a number: real processes joined by gloo, some pictures unreadable."""

import math

import pytest
import torch

from vistok import FSQConfig, VQModelHF
from vistok.data.samples import open_samples

from ..ranks import run_ranks
from .evaluate_rank import measure

COUNT, UNREADABLE = 23, [4, 5, 6, 7, 20]  # a prime number; four in a row are whole batches of 1
RANKS = 2
SIZES = (1, 7, 64)  # with 64, the second rank has nothing


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What one process says, and what each of two ranks says."""
    import datasets

    folder = tmp_path_factory.mktemp("ranks")
    source = open_samples("validation")
    pictures = [
        {"bytes": b"no picture", "path": None} if row in UNREADABLE else source.read(row).decode()
        for row in range(COUNT)
    ]
    features = datasets.Features({"image": datasets.Image()})
    (folder / "pictures").mkdir()
    datasets.Dataset.from_dict({"image": pictures}, features=features).to_parquet(
        folder / "pictures" / "train.parquet"
    )
    torch.manual_seed(0)
    network = {"model_type": "vistok_simple_cnn", "hidden_channels": 8}
    config = FSQConfig(levels=[8, 5, 5, 5], image_size=32, network=network, num_codebooks=2)
    VQModelHF(config).save_pretrained(folder / "model")
    one = measure(0, folder, SIZES)
    return one, run_ranks("tests.evaluation.evaluate_rank", RANKS, folder / "ranks", folder, *SIZES)


def without_speed(results: dict) -> dict:
    return {name: value for name, value in results.items() if name != "speed"}


def test_every_rank_has_the_same_result(runs):
    first, *others = [{k: without_speed(v) for k, v in rank.items()} for rank in runs[1]]
    assert others == [first] * (RANKS - 1)


@pytest.mark.parametrize("size", SIZES)
def test_several_ranks_equal_one(runs, size):
    one, several = runs[0][str(size)], runs[1][0][str(size)]
    exact = set(one["metrics"]) - {"rfid"}  # whose sums have another order
    assert {name: several["metrics"][name] for name in exact} == {
        name: one["metrics"][name] for name in exact
    }
    assert several["metrics"]["rfid"] == pytest.approx(one["metrics"]["rfid"], rel=1e-6)
    for part in ("codebooks", "extremes", "protocol"):
        assert several[part] == one[part]


@pytest.mark.parametrize("size", SIZES[1:])
def test_the_batch_size_changes_no_number(runs, size):
    one, other = runs[0]["1"], runs[0][str(size)]
    assert other["metrics"] == pytest.approx(one["metrics"], rel=1e-6)
    assert other["protocol"] == one["protocol"]
    assert other["codebooks"] == one["codebooks"]


def test_each_picture_is_counted_once(runs):
    for size in SIZES:
        protocol = runs[1][0][str(size)]["protocol"]
        assert protocol["pictures"] == COUNT - len(UNREADABLE)
        assert protocol["unreadable_rows"] == UNREADABLE


def test_rfid_needs_no_other_metric(runs):
    for result in (runs[0], runs[1][0]):
        alone = result["rfid alone"]["metrics"]["rfid"]
        assert alone == pytest.approx(result[str(SIZES[0])]["metrics"]["rfid"], rel=1e-6)


def test_tokens_of_a_codebook_without_a_table_are_summed_over_ranks(runs):
    # Rank 0 has 0, rank 1 has 1, and both have 7 and the last entry.
    entropy = 2 * (1 / 6 * math.log(6) + 1 / 3 * math.log(3))
    assert runs[1][0]["large"]["codebook_perplexity"] == pytest.approx(math.exp(entropy))
    assert runs[1][0]["large"]["codebook_usage"] == 4 / 2**40
