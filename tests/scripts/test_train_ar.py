"""The example that users copy runs, and what it reports is what it should be."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from PIL import Image

from vistok import FSQConfig, SimpleCNNConfig, VQModelHF
from vistok.data import IndexedSource, Picture, open_dataset
from vistok.extraction import Views, extract, load_tokens

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "train_ar.py"
spec = importlib.util.spec_from_file_location("train_ar", SCRIPT)
train_ar = importlib.util.module_from_spec(spec)
spec.loader.exec_module(train_ar)


class Pictures(IndexedSource):
    """Plain pictures with labels of a test's choice."""

    def __init__(self, labels, names=None):
        super().__init__("plain", "train", "0", has_labels=labels[0] is not None, label_names=names)
        self.labels = labels

    @property
    def num_rows(self):
        return len(self.labels)

    def read(self, row):
        return Picture(row, Image.new("RGB", (24, 16), (20 * row, 90, 200)), self.labels[row])


def make_tokenizer(folder, seed=0, **fields):
    torch.manual_seed(seed)
    network = SimpleCNNConfig(hidden_channels=4, num_res_blocks=1)
    model = VQModelHF(FSQConfig(levels=[4, 3], image_size=16, network=network, **fields)).eval()
    with torch.no_grad():
        model.to_latents.weight.mul_(20)
    model.save_pretrained(folder)
    return VQModelHF.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("ar") / "tokenizer")


@pytest.fixture(scope="module")
def tokens(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ar") / "tokens"
    source = open_dataset("samples", split="validation")
    extract(tokenizer, source, folder, batch_size=16, progress=False)
    return folder


def words(training, validation, folder, *more):
    flags = ["--tokens", str(training), "--validation_tokens", str(validation), "--output_dir", str(folder)]
    return [*flags, "--hidden_size", "64", "--num_hidden_layers", "1", *more]


def refusal(arguments, monkeypatch):
    """What the script says as it ends, before it has trained."""
    monkeypatch.setattr(sys, "argv", ["train_ar.py", *arguments])
    monkeypatch.setattr(train_ar, "LlamaForCausalLM", lambda *_: pytest.fail("it goes on"))
    with pytest.raises(SystemExit) as ended:
        train_ar.main()
    assert "\n" not in str(ended.value)
    return str(ended.value)


def test_it_trains_samples_and_draws(tokens, tmp_path, monkeypatch, capsys):
    steps = ["--max_train_steps", "60", "--num_classes", "2", "--per_class", "3"]
    monkeypatch.setattr(sys, "argv", ["train_ar.py", *words(tokens, tokens, tmp_path / "ar", *steps)])
    train_ar.main()
    results = json.loads((tmp_path / "ar" / "results.json").read_text())
    assert results["validation_loss"] < results["unigram_entropy"]  # of what it was trained on: it must learn
    assert results["steps"] == 60
    with Image.open(tmp_path / "ar" / "samples.png") as sheet:
        assert sheet.size == (3 * 16, 2 * 16)


LABELS = [0, 1, 2, 0, 1, 2]
SHARED = {"labels": LABELS, "names": None, "views": None}


@pytest.mark.parametrize(
    ("training", "validation", "message"),
    [
        (
            {},
            {"labels": [0, 1, -1]},
            "VALIDATION has rows without a label",
        ),
        ({"labels": [-1] * 6}, {}, "TRAINING has rows without a label"),
        ({}, {"labels": [0, 3]}, "VALIDATION has the label 3, the classes of TRAINING are 0 to 2"),
        ({}, {"labels": [None] * 3}, "VALIDATION has no rows with labels"),
        ({"labels": [None] * 6}, {}, "TRAINING has no rows with labels"),
        (
            {"names": ["ant", "bee", "cat"]},
            {"names": ["ant", "cat", "dog"]},
            "TRAINING and VALIDATION have other label names",
        ),
        (
            {"views": Views(16, buckets=((16, 16), (8, 24)))},
            {},
            "TRAINING has pictures of several shapes: extract without --buckets",
        ),
        ({}, {"views": Views(32)}, r"tokens' grid is \[4, 4\] in TRAINING, \[8, 8\] in VALIDATION"),
    ],
)
def test_tokens_that_it_cannot_learn_from_are_refused(
    tokenizer, training, validation, message, tmp_path, monkeypatch
):
    folders = {"TRAINING": tmp_path / "training", "VALIDATION": tmp_path / "validation"}
    for folder, wanted in zip(folders.values(), (training, validation), strict=True):
        wanted = SHARED | wanted
        source = Pictures(wanted["labels"], wanted["names"])
        extract(tokenizer, source, folder, views=wanted["views"], batch_size=4, progress=False)
    said = refusal(words(*folders.values(), tmp_path / "ar", "--train_batch_size", "2"), monkeypatch)
    for name, folder in folders.items():
        said = said.replace(str(folder), name)
    assert re.search(message, said), said


def test_tokens_of_two_orders_are_refused(tmp_path, monkeypatch):
    several = make_tokenizer(tmp_path / "tokenizer", num_codebooks=2)
    folders = {order: tmp_path / order for order in ("place_major", "codebook_major")}
    for order, folder in folders.items():
        extract(several, Pictures(LABELS), folder, token_order=order, batch_size=4, progress=False)
    said = refusal(words(*folders.values(), tmp_path / "ar", "--train_batch_size", "2"), monkeypatch)
    assert "order is place_major" in said and "codebook_major in" in said


def test_another_tokenizer_is_refused_before_it_trains(tokens, tmp_path, monkeypatch):
    other = make_tokenizer(tmp_path / "other", seed=1)
    extract(other, Pictures(LABELS), tmp_path / "tokens", batch_size=4, progress=False)
    for validation, flags in ((tokens, ["--tokenizer", str(tmp_path / "other")]), (tmp_path / "tokens", [])):
        said = refusal(words(tokens, validation, tmp_path / "ar", *flags), monkeypatch)
        assert re.search("weights_sha256 [0-9a-f]{64}, the model .* has [0-9a-f]{64}", said), said


def test_tokens_and_tokenizers_that_are_not_there_are_named(tokens, tmp_path, monkeypatch):
    nowhere = tmp_path / "nowhere"
    assert f"{nowhere} holds no tokens" in refusal(words(tokens, nowhere, tmp_path / "ar"), monkeypatch)
    flags = words(tokens, tokens, tmp_path / "ar", "--tokenizer", str(nowhere))
    said = refusal(flags, monkeypatch)
    assert f"No tokenizer {nowhere}" in said and "--tokenizer where it is" in said


@pytest.mark.filterwarnings(
    "ignore:Use 'content=:DeprecationWarning"
)  # httpx, about huggingface_hub's uploads
def test_a_tokenizer_of_the_hub_is_that_of_the_plan(hub, tokenizer, tmp_path):
    tokenizer.push_to_hub("org/moving")
    pinned = VQModelHF.from_pretrained("org/moving", dtype=torch.float32).eval()
    assert pinned.config._commit_hash == hub.commits("org/moving")[-1].oid
    extract(pinned, Pictures(LABELS), tmp_path / "tokens", batch_size=4, progress=False)
    make_tokenizer(tmp_path / "other", seed=1).push_to_hub("org/moving")
    opened = train_ar.open_tokenizer(Namespace(tokens=tmp_path / "tokens", tokenizer=None))
    load_tokens(tmp_path / "tokens", model=opened)  # it refuses another one


def test_a_batch_above_the_rows_ends_with_a_line(tokens, tmp_path):
    """In a process of its own, with an end: the loop over no batches has none."""
    command = [sys.executable, str(SCRIPT), *words(tokens, tokens, tmp_path, "--train_batch_size", "129")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 1
    assert ended.stderr == (
        f"train_ar.py: --train_batch_size must be at most 128, a process' share of {tokens}, got 129\n"
    )


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--hidden_size", "32", "--hidden_size must be a multiple of 64, got 32"),
        ("--hidden_size", "0", "--hidden_size must be a multiple of 64, got 0"),
        ("--hidden_size", "100", "--hidden_size must be a multiple of 64, got 100"),
        ("--train_batch_size", "0", "--train_batch_size must be at least 1, got 0"),
        ("--per_class", "0", "--per_class must be at least 1, got 0"),
    ],
)
def test_a_flag_out_of_range_is_named(flag, value, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train_ar.py", *words("a", "b", tmp_path, flag, value)])
    with pytest.raises(SystemExit, match="2"):
        train_ar.main()
    assert capsys.readouterr().err.splitlines()[-1] == f"train_ar.py: error: {message}"


def test_the_unigram_entropy_is_that_of_the_counts(tokens):
    dataset = load_tokens(tokens)
    everything = torch.cat([dataset[i]["tokens"] for i in range(len(dataset))])
    shares = torch.bincount(everything).double() / len(everything)
    expected = torch.distributions.Categorical(probs=shares).entropy().item()
    assert train_ar.unigram_entropy(dataset) == pytest.approx(expected, abs=1e-5)


def test_the_loss_is_that_of_each_token_given_those_before(tokens):
    class Counting(torch.nn.Module):
        """Says that the next token is the current one plus 1, of 12; after a class, 0."""

        def forward(self, input_ids, use_cache):
            after = torch.where(input_ids < 12, (input_ids + 1) % 12, 0)
            logits = torch.nn.functional.one_hot(after, 20).float() * 50
            return type("Output", (), {"logits": logits})

    labels = torch.tensor([3, 5])
    counting = torch.arange(6).repeat(2, 1)
    assert train_ar.loss_of(Counting(), 12, labels, counting).item() == pytest.approx(0, abs=1e-6)
    wrong = counting.clone()
    wrong[0, 5] = 9
    losses = train_ar.loss_of(Counting(), 12, labels, wrong, reduction="none")
    assert losses.shape == (2, 6)
    assert (losses > 1).nonzero().tolist() == [[0, 5]]


def test_the_figures_are_of_the_commands_that_the_readme_shows():
    pages = [(ROOT / page).read_text() for page in ("README.md", "docs/results.md")]
    shown = [re.findall(r"```bash\n([^`]*scripts/train_ar\.py[^`]*)```", page) for page in pages]
    assert shown[0] == shown[1] and len(shown[0]) == 1
