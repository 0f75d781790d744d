"""Folders of other projects on the Hub load as they are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.conversion.golden_cases import assert_as_expected, golden
from vistok import OptVQConfig, VistokImageProcessor, VQModelHF


@pytest.fixture
def folder(tmp_path) -> Path:
    """OptVQ's, as its Hub mixin writes it."""
    source, _ = golden("optvq_hub_4heads")
    save_file(source.groups[""], tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(source.settings))
    return tmp_path


def test_optvqs_folder_gives_its_tokens_and_pictures(folder):
    model = VQModelHF.from_pretrained(folder)
    assert isinstance(model.config, OptVQConfig)
    assert not model.training
    assert_as_expected(model, golden("optvq_hub_4heads")[1]["square"])


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_weights_in_several_files_are_one_model(folder, hub):
    from huggingface_hub import HfApi

    source, expected = golden("optvq_hub_4heads")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="holds neither model.safetensors nor model.safetensors.index.json"):
        VQModelHF.from_pretrained(folder)
    names = [f"model-0000{place}-of-00002.safetensors" for place in (1, 2)]
    weight_map = {key: names[place % 2] for place, key in enumerate(source.groups[""])}
    for name in names:
        save_file({k: w for k, w in source.groups[""].items() if weight_map[k] == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert_as_expected(VQModelHF.from_pretrained(folder), expected["square"])
    HfApi().create_repo("BorelTHU/optvq-shards")
    HfApi().upload_folder(repo_id="BorelTHU/optvq-shards", folder_path=folder)
    assert_as_expected(VQModelHF.from_pretrained("BorelTHU/optvq-shards"), expected["square"])
    (folder / names[0]).unlink()
    with pytest.raises(ValueError, match=f"names {names[0]}, which is not there: download it too") as refused:
        VQModelHF.from_pretrained(folder)
    assert len(str(refused.value).splitlines()) == 1


def test_titoks_folder_gives_its_tokens_and_pictures(tmp_path):
    source, expected = golden("titok_legacy_finetuned_decoder")
    save_file(source.groups[""], tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(source.settings))
    model = VQModelHF.from_pretrained(tmp_path)
    with torch.no_grad():
        tokens = model.encode(expected["square"]["pixel_values"]).tokens
    assert torch.equal(tokens, expected["square"]["tokens"].squeeze(1))


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_from_the_hub(folder, hub):
    from huggingface_hub import HfApi

    HfApi().create_repo("BorelTHU/optvq-small")
    HfApi().upload_folder(repo_id="BorelTHU/optvq-small", folder_path=folder)
    model = VQModelHF.from_pretrained("BorelTHU/optvq-small")
    assert_as_expected(model, golden("optvq_hub_4heads")[1]["square"])


def test_dtype_and_image_size_are_taken(folder):
    model = VQModelHF.from_pretrained(folder, dtype=torch.bfloat16, image_size=64)
    assert model.dtype == torch.bfloat16
    assert {state.dtype for state in model.quantizer.state_dict().values()} == {torch.float32}
    assert model.token_shape == (4, 32, 32)


def test_an_image_size_of_0_is_no_default(folder):
    with pytest.raises(ValueError, match="Expected a value of image_size, or none at all; got 0"):
        VQModelHF.from_pretrained(folder, image_size=0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"dtype": "bfloat16"},
        {"torch_dtype": "float16"},
        {"dtype": "auto"},
        {"device_map": {"": "cpu"}},
        {"low_cpu_mem_usage": True, "trust_remote_code": False, "attn_implementation": "sdpa"},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:.*torch_dtype.*")
def test_the_usual_arguments_are_taken(folder, arguments):
    model, info = VQModelHF.from_pretrained(folder, output_loading_info=True, **arguments)
    wanted = next(iter(v for k, v in arguments.items() if "dtype" in k), "auto")
    assert model.dtype == (torch.float32 if wanted == "auto" else getattr(torch, wanted))
    assert not info["missing_keys"]


def test_its_processor_is_of_its_size(folder):
    processor = VistokImageProcessor.from_pretrained(folder)
    assert processor.crop_size == {"height": 32, "width": 32}
    with pytest.raises(OSError, match="preprocessor_config"):
        VistokImageProcessor.from_pretrained(folder / "..")


def test_half_a_projection_is_no_identity(folder):
    source, _ = golden("optvq_hub_4heads")
    weights = source.groups[""]
    del weights["model.quant_conv.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match="quant_conv.weight"):
        VQModelHF.from_pretrained(folder)


@pytest.mark.parametrize("name", ["model.encoder.conv_out.weight", "model.quantize.embedding.weight"])
def test_tensors_without_elements_are_refused(folder, name):
    source, _ = golden("optvq_hub_4heads")
    weights = source.groups[""]
    shape = list(weights[name].shape)
    weights[name] = torch.zeros(13_000, 0, *shape[2:])
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match="has no elements"):
        VQModelHF.from_pretrained(folder)


def test_saved_again_it_is_a_folder_of_vistok(folder, tmp_path):
    model = VQModelHF.from_pretrained(folder)
    model.save_pretrained(tmp_path / "ours")
    again = VQModelHF.from_pretrained(tmp_path / "ours")
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"config.json": "{}"}, "has no model_type: it is no folder of vistok"),
        ({"config.json": '{"encoder": {}, "quantize": {}}'}, "has no model_type"),
        ({"config.json": "[]"}, "config.json"),
    ],
)
def test_other_folders_are_refused_in_one_line(folder, damage, message):
    for name, text in damage.items():
        (folder / name).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        VQModelHF.from_pretrained(folder)
    assert "\n" not in str(error.value)


def test_missing_weights_are_listed(folder):
    source, _ = golden("optvq_hub_4heads")
    weights = source.groups[""]
    del weights["model.post_quant_conv.bias"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing: from_quantized\.bias"):
        VQModelHF.from_pretrained(folder)


def test_what_needs_a_converted_folder_says_so(folder):
    with pytest.raises(ValueError, match="convert it first: vistok convert optvq"):
        VQModelHF.from_pretrained(folder, device_map="auto")


def test_importing_vistok_loads_no_family():
    program = "import sys, vistok; print([m for m in sys.modules if m.startswith('vistok.conversion')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
