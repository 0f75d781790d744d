"""Upload and download against the stand-in for the Hub: what others load is what one commit pushed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError
from transformers import AutoModel
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from vistok import (
    FSQConfig,
    SimpleCNNConfig,
    VistokImageProcessor,
    VisualTokenizerConfig,
    VQConfig,
    VQModelHF,
)

ROOT = Path(__file__).parents[1]
# httpx to huggingface_hub 2.4, about how it uploads large files.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
BESIDE_WEIGHTS = {"config.json", "preprocessor_config.json", "README.md"}


def tiny(config_class=VQConfig, **fields) -> VQModelHF:
    network = SimpleCNNConfig(hidden_channels=4, num_res_blocks=1)
    return VQModelHF(config_class(image_size=16, network=network, **fields)).eval()


def same_weights(a: VQModelHF, b: VQModelHF) -> bool:
    states = a.state_dict(), b.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )


@pytest.fixture(scope="module")
def model(hub) -> VQModelHF:
    model = tiny(codebook_size=16, codebook_dim=4)
    model.push_to_hub("org/tiny")
    return model


def test_weights_processor_and_card_are_one_commit(hub):
    address = tiny().push_to_hub("org/one-commit", commit_message="The first")
    [commit] = hub.commits("org/one-commit")
    assert commit.added == {*BESIDE_WEIGHTS, "model.safetensors"}
    assert (commit.title, commit.deleted) == ("The first", set())
    assert address == f"{hub.url}/org/one-commit/commit/{commit.oid}"
    assert json.loads(commit.files["preprocessor_config.json"])["crop_size"] == {"height": 16, "width": 16}


def test_the_card_names_the_repository(hub, model):
    card = hub.commits("org/tiny")[0].files["README.md"].decode()
    assert 'VQModelHF.from_pretrained("org/tiny")' in card
    assert "library_name: vistok" in card


def test_a_card_on_the_hub_is_left_alone(hub):
    for model in (tiny(), tiny(codebook_size=32)):
        model.push_to_hub("org/twice")
    first, second = hub.commits("org/twice")
    assert second.added == {"config.json", "model.safetensors"} | (second.added & BESIDE_WEIGHTS)
    assert "README.md" not in second.added
    assert second.files["README.md"] == first.files["README.md"]


def test_what_is_loaded_is_what_was_pushed(model):
    loaded = VQModelHF.from_pretrained("org/tiny")
    assert same_weights(loaded, model)
    assert loaded.config == model.config
    assert not loaded.training
    pixel_values = torch.rand(2, 3, 16, 16) * 2 - 1
    assert torch.equal(loaded.encode(pixel_values).tokens, model.encode(pixel_values).tokens)


def test_the_auto_classes_find_it(model):
    auto = AutoModel.from_pretrained("org/tiny")
    assert type(auto) is VQModelHF
    assert same_weights(auto, model)
    config = VisualTokenizerConfig.from_pretrained("org/tiny")
    assert type(config) is VQConfig
    assert config == model.config
    for processor_class in (AutoImageProcessor, VistokImageProcessor):
        processor = processor_class.from_pretrained("org/tiny")
        assert type(processor) is VistokImageProcessor
        assert dict(processor.crop_size) == {"height": 16, "width": 16}


def test_a_revision_is_a_commit(hub):
    first, second = tiny(), tiny(codebook_size=32)
    for model in (first, second):
        model.push_to_hub("org/revised")
    old = hub.commits("org/revised")[0].oid
    assert same_weights(VQModelHF.from_pretrained("org/revised", revision=old), first)
    assert same_weights(VQModelHF.from_pretrained("org/revised"), second)
    assert VisualTokenizerConfig.from_pretrained("org/revised", revision=old) == first.config


def test_shards_replace_a_single_file_and_back(hub):
    whole = tiny(FSQConfig)
    sharded = tiny(FSQConfig)
    whole.push_to_hub("org/sharded")
    sharded.push_to_hub("org/sharded", max_shard_size="2KB")
    _, commit = hub.commits("org/sharded")
    assert commit.deleted == {"model.safetensors"}  # loading would prefer it
    assert sum(path.startswith("model-") for path in commit.added) > 1
    assert same_weights(VQModelHF.from_pretrained("org/sharded"), sharded)
    whole.push_to_hub("org/sharded")
    files = hub.commits("org/sharded")[-1].files
    assert {path for path in files if path.startswith("model")} == {"model.safetensors"}
    assert same_weights(VQModelHF.from_pretrained("org/sharded"), whole)


def test_save_pretrained_can_push(hub, tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path, push_to_hub=True, repo_id="org/saved", private=True)
    assert len(hub.commits("org/saved")) == 1
    assert hub.repos["model", "org/saved"].private
    assert same_weights(VQModelHF.from_pretrained("org/saved"), model)
    assert {path.name for path in tmp_path.iterdir()} == {*BESIDE_WEIGHTS, "model.safetensors"}


def test_what_was_loaded_once_loads_offline(hub_env, model):
    VQModelHF.from_pretrained("org/tiny")
    AutoImageProcessor.from_pretrained("org/tiny")
    code = """
from transformers import AutoModel
from transformers.models.auto.image_processing_auto import AutoImageProcessor
import vistok
model = AutoModel.from_pretrained("org/tiny")
AutoImageProcessor.from_pretrained("org/tiny")
print(model.encoder.conv.bias.tolist())
"""
    environment = {**os.environ, **hub_env, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    environment["HF_ENDPOINT"] = "http://127.0.0.1:9"  # nobody listens there
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == model.encoder.conv.bias.tolist()


def test_a_second_load_downloads_nothing(hub, model):
    VQModelHF.from_pretrained("org/tiny")
    before = len(hub.log)
    VQModelHF.from_pretrained("org/tiny")
    assert not [line for line in hub.log[before:] if line.startswith("GET") and "/resolve/" in line]


@pytest.mark.parametrize("load", [VQModelHF, VisualTokenizerConfig, VistokImageProcessor, AutoModel])
def test_an_unknown_repository_is_named(hub, load):
    with pytest.raises(OSError, match="org/nowhere"):
        load.from_pretrained("org/nowhere")


@pytest.mark.parametrize("load", [VQModelHF, VisualTokenizerConfig])
def test_an_unknown_revision_is_named(model, load):
    with pytest.raises(OSError, match="no-such-branch"):
        load.from_pretrained("org/tiny", revision="no-such-branch")


def test_a_gated_repository_says_so(hub):
    tiny().push_to_hub("org/gated")
    hub.repos["model", "org/gated"].gated = True
    with pytest.raises(OSError, match="(?i)gated repo"):
        VQModelHF.from_pretrained("org/gated")
    with pytest.raises(GatedRepoError):
        hf_hub_download("org/gated", "config.json")


def test_a_private_repository_needs_the_token(hub, monkeypatch, tmp_path):
    tiny().push_to_hub("org/private", private=True)
    VQModelHF.from_pretrained("org/private")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(OSError, match="org/private"):
        VQModelHF.from_pretrained("org/private", cache_dir=tmp_path)


@pytest.mark.parametrize("token", [False, "hf_wrong"])
def test_pushing_without_the_right_token_uploads_nothing(hub, token):
    with pytest.raises(HfHubHTTPError, match="401"):
        tiny().push_to_hub("org/never", token=token)
    assert ("model", "org/never") not in hub.repos


def test_the_repository_that_the_readme_names_is_there(hub):
    assert set(hub.commits("org/fsq-64k")[0].files) >= {*BESIDE_WEIGHTS, "model.safetensors"}
    assert VQModelHF.from_pretrained("org/fsq-64k").codebook_size == 64_000
