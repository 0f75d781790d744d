"""The example that users copy runs, and what it reports is what it should be."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from vistok import FSQConfig, SimpleCNNConfig, VQModelHF
from vistok.data import open_dataset
from vistok.extraction import extract, load_tokens

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_ar.py"
spec = importlib.util.spec_from_file_location("train_ar", SCRIPT)
train_ar = importlib.util.module_from_spec(spec)
spec.loader.exec_module(train_ar)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ar")
    torch.manual_seed(0)
    network = SimpleCNNConfig(hidden_channels=4, num_res_blocks=1)
    model = VQModelHF(FSQConfig(levels=[4, 3], image_size=16, network=network)).eval()
    with torch.no_grad():
        model.to_latents.weight.mul_(20)
    model.save_pretrained(folder / "tokenizer")
    model = VQModelHF.from_pretrained(folder / "tokenizer").eval()
    source = open_dataset("samples", split="validation")
    extract(model, source, folder / "tokens", batch_size=16, progress=False)
    return folder / "tokens"


def test_it_trains_samples_and_draws(tokens, tmp_path, monkeypatch, capsys):
    words = ["--tokens", str(tokens), "--validation_tokens", str(tokens)]
    words += ["--output_dir", str(tmp_path / "ar"), "--hidden_size", "64", "--num_hidden_layers", "1"]
    words += ["--max_train_steps", "60", "--num_classes", "2", "--per_class", "3"]
    monkeypatch.setattr(sys, "argv", ["train_ar.py", *words])
    train_ar.main()
    results = json.loads((tmp_path / "ar" / "results.json").read_text())
    assert results["validation_loss"] < results["unigram_entropy"]  # of what it was trained on: it must learn
    assert results["steps"] == 60
    with Image.open(tmp_path / "ar" / "samples.png") as sheet:
        assert sheet.size == (3 * 16, 2 * 16)


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
