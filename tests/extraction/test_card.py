"""A dataset of tokens on the Hub: one commit, a card, and the same rows back."""

import shutil

import pytest
import torch
from huggingface_hub import DatasetCard
from huggingface_hub.errors import OfflineModeIsEnabled
from token_folders import run

from vistok.extraction import IncompleteError, ShardError, load_tokens
from vistok.extraction.card import push_tokens

# httpx to huggingface_hub 2.4, about how it uploads large files.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def test_the_card_says_what_made_the_tokens(tokens, model):
    text = (tokens / "README.md").read_text()
    card = DatasetCard(text)
    assert card.data.to_dict()["configs"][0]["data_files"] == [{"split": "train", "path": "data/*.parquet"}]
    for said in ("fsq", "101", "1,000", "adm_crop", "float32", "`tiny`", "16"):
        assert said in text


def test_pushed_tokens_are_one_commit_and_come_back(hub, tokens):
    push_tokens(tokens, "org/tokens")
    [commit] = hub.repos["dataset", "org/tokens"].commits[1:]
    names = {f"data/{path.name}" for path in (tokens / "data").iterdir()}
    assert commit.added == {"plan.json", "manifest.json", "README.md", *names}
    assert 'load_tokens("org/tokens")' in commit.files["README.md"].decode()
    loaded, local = load_tokens("org/tokens"), load_tokens(tokens)
    assert len(loaded) == len(local)
    assert all(torch.equal(loaded[i]["tokens"], local[i]["tokens"]) for i in range(0, len(local), 9))


def test_tokens_that_were_fetched_once_need_no_hub(hub, tokens, monkeypatch):
    push_tokens(tokens, "org/fetched")
    load_tokens("org/fetched")

    def unplugged(*_, **__):
        raise OfflineModeIsEnabled("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", unplugged)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unplugged)
    assert len(load_tokens("org/fetched")) == 101


def test_a_card_on_the_hub_is_left_alone(hub, tokens):
    for _ in range(2):
        push_tokens(tokens, "org/twice-tokens")
    commits = hub.repos["dataset", "org/twice-tokens"].commits[1:]
    assert commits[0].files["README.md"] == commits[-1].files["README.md"]
    assert all("README.md" not in commit.added for commit in commits[1:])


def test_shards_of_another_extraction_are_replaced(hub, tokens, model, source, tmp_path):
    run(model, source, tmp_path / "out", shard_size=101)
    for folder in (tokens, tmp_path / "out"):
        push_tokens(folder, "org/again-tokens")
    files = hub.repos["dataset", "org/again-tokens"].commits[-1].files
    shards = sorted(path.name for path in (tmp_path / "out" / "data").glob("*.parquet"))
    assert sorted(name for name in files if name.endswith(".parquet")) == [f"data/{name}" for name in shards]
    assert len(load_tokens("org/again-tokens")) == 101


def test_what_is_not_complete_is_not_pushed(hub, tokens, tmp_path):
    copied = shutil.copytree(tokens, tmp_path / "copy")
    (copied / "manifest.json").unlink()
    with pytest.raises(IncompleteError):
        push_tokens(copied, "org/half")
    assert ("dataset", "org/half") not in hub.repos


def flip_a_bit(shard):
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            flip_a_bit,
            "1 of 6 shards are missing or not as recorded, the first is .*train-00003-of-00006.parquet",
        ),
        (lambda shard: shard.unlink(), "1 of 6 shards are missing or not as recorded"),
        (lambda shard: shard.with_suffix(".json").unlink(), "train-00003-of-00006.json is missing"),
    ],
)
def test_what_is_damaged_is_not_pushed(hub, tokens, tmp_path, harm, message):
    copied = shutil.copytree(tokens, tmp_path / "copy")
    harm(copied / "data" / "train-00003-of-00006.parquet")
    with pytest.raises(ShardError, match=message):
        push_tokens(copied, "org/damaged")
    assert ("dataset", "org/damaged") not in hub.repos
