"""Published layouts: the converted model makes the original's tokens, latents and pictures."""

import dataclasses
import importlib

import pytest
import torch

from tests.conversion.golden_cases import assert_as_expected, golden
from vistok import VQModelHF
from vistok.conversion.base import Converted, Family, OptionError

CASES = {  # case -> family, its options, the prefix of what is expected
    "fsqpytorch_8555": ("fsq_pytorch", {}, ""),
    "ibq": ("ibq", {}, ""),
    "ibq, ema": ("ibq", {"weights": "ema"}, "ema/"),
    "llamagen_model": ("llamagen", {}, ""),
    "maskbit_10bit": ("maskbit", {}, ""),
    "maskgit_vqgan": ("maskgit_vqgan", {}, ""),
    "open_magvit2": ("open_magvit2", {}, ""),
    "open_magvit2, ema": ("open_magvit2", {"weights": "ema"}, "ema/"),
    "optvq_hub_4heads": ("optvq", {}, ""),
    "optvq_local_2heads": ("optvq", {}, ""),
    "simvq": ("simvq", {}, ""),
    "simvq, ema": ("simvq", {"weights": "ema"}, "ema/"),
    "taming_gumbel": ("taming", {}, ""),
    "taming_vqgan": ("taming", {}, ""),
    "var_vae": ("var", {"scales": [1, 2, 3, 4, 6, 8]}, ""),
    "xyfjason_cnn_fsq": ("visual_tokenizer", {}, ""),
    "xyfjason_cnn_vq": ("visual_tokenizer", {}, ""),
}


def family(name: str) -> Family:
    return importlib.import_module(f"vistok.conversion.{name}").FAMILY


def converted(case: str) -> tuple[Converted, dict]:
    name, options, prefix = CASES[case]
    source, expected = golden(case.partition(",")[0])
    wanted = {
        key.removeprefix(prefix): value
        for key, value in expected.items()
        if key.startswith(prefix) and "/" not in key.removeprefix(prefix)
    }
    return family(name).convert(source, **options), wanted


@pytest.mark.parametrize("case", CASES)
def test_a_converted_model_is_the_original(case: str, tmp_path):
    conversion, expected = converted(case)
    model = conversion.model(case)
    assert expected
    for pictures in expected.values():
        assert_as_expected(model, pictures)
    model.save_pretrained(tmp_path)
    again = VQModelHF.from_pretrained(tmp_path).eval()
    assert again.config == model.config
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name


@pytest.mark.parametrize("case", [case for case in CASES if "fsq" not in case and "cnn" not in case])
def test_without_the_projects_settings_the_network_is_the_same(case: str):
    name, options, _ = CASES[case]
    source, _ = golden(case.partition(",")[0])
    bare = family(name).convert(dataclasses.replace(source, settings={}), **options)
    with_settings = family(name).convert(source, **options)
    assert bare.config.network == with_settings.config.network
    assert type(bare.config) is type(with_settings.config)
    assert bare.model(case).codebook_size == with_settings.model(case).codebook_size


@pytest.mark.parametrize("case", [case for case in CASES if "ema" not in case])
def test_what_does_not_fit_is_listed(case: str):
    name, options, _ = CASES[case]
    source, _ = golden(case.partition(",")[0])
    group = max(source.groups, key=lambda group: len(source.groups[group]))
    weights = source.groups[group]
    picked = [key for key in weights if key.startswith(("decoder.", "model.decoder.", "module.dec."))]
    missing, misshapen = picked[-1], picked[0]
    del weights[missing]
    weights[misshapen] = weights[misshapen][:-1]
    weights["encoder.surprise.weight"] = torch.zeros(1)
    listed = "do not fit this family: missing: .*; left over: .*; of another shape: "
    with pytest.raises(ValueError, match=listed) as error:
        family(name).convert(source, **options).model(case)
    assert "encoder.surprise.weight" in str(error.value)
    assert "\n" not in str(error.value)


def test_losses_and_averages_are_dropped_and_named():
    conversion, _ = converted("ibq")
    kinds = {name.partition(".")[0] for name in conversion.dropped}
    assert kinds == {"loss", "model_ema"}
    assert conversion.left_over == []


def test_fsq_levels_are_asked_for_where_the_file_does_not_say():
    source, _ = golden("fsqpytorch_8555")
    weights = source.groups["model_state_dict"]
    for name in ("module.enc.blocks.6.weight", "module.enc.blocks.6.bias"):
        weights[name] = torch.cat([weights[name], weights[name][:1]])
    weights["module.dec.blocks.0.weight"] = weights["module.dec.blocks.0.weight"][[0, 1, 2, 3, 0]]
    convert = family("fsq_pytorch").convert
    with pytest.raises(ValueError, match="say --levels"):
        convert(source)
    with pytest.raises(ValueError, match="5 channels, --levels 8 5 are not as many"):
        convert(source, levels=[8, 5])
    assert convert(source, levels=[7, 5, 5, 5, 5]).model("file").codebook_size == 7 * 5**4


def test_the_full_settings_of_lightning_name_the_model_after_others():
    source, _ = golden("ibq")
    callbacks = {"trainer": {"callbacks": [{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}]}}
    settings = {**callbacks, "data": {"class_path": "main.Data"}, **source.settings}
    family("ibq").convert(dataclasses.replace(source, settings=settings)).model("ibq")
    with pytest.raises(ValueError, match="IBQ.*which has the same layout"):
        family("taming").convert(dataclasses.replace(source, settings=settings))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda names: [n for n in names if n.startswith("model_ema.enc")], "no average.*encoder"),
        (
            lambda names: [n for n in names if n.startswith("model_ema.") and n[10:] != "decay"],
            "no averaged weights",
        ),
    ],
    ids=["some", "all"],
)
def test_averages_that_are_missing_are_an_error(change, message):
    source, _ = golden("ibq")
    weights = source.groups["state_dict"]
    for name in change(list(weights)):
        del weights[name]
    with pytest.raises(ValueError, match=message):
        family("ibq").convert(source, weights="ema")


def test_averages_of_nothing_are_an_error():
    source, _ = golden("ibq")
    source.groups["state_dict"]["model_ema.bogus"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"of no weight: model_ema\.bogus"):
        family("ibq").convert(source, weights="ema")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_what_wrappers_put_before_names_is_taken_away(prefix: str):
    source, expected = golden("llamagen_model")
    weights = {prefix + name: weight for name, weight in source.groups["model"].items()}
    model = family("llamagen").convert(dataclasses.replace(source, groups={"model": weights})).model("file")
    assert_as_expected(model, expected["square"])


def test_weights_that_are_no_real_numbers_are_listed():
    source, _ = golden("llamagen_model")
    source.groups["model"]["quantize.embedding.weight"] = torch.ones(96, 8, dtype=torch.complex64)
    with pytest.raises(ValueError, match="of another kind: quantizer.codebook torch.complex64"):
        family("llamagen").convert(source).model("file")


def test_llamagens_arguments_weigh_its_losses():
    source, _ = golden("llamagen_model")
    arguments = {"commit_loss_beta": 0.5, "entropy_loss_ratio": 0.1, "codebook_weight": 3.0}
    config = family("llamagen").convert(dataclasses.replace(source, settings=arguments)).config
    # Its training takes `codebook_weight` and multiplies nothing by it.
    assert (config.commitment_weight, config.entropy_weight, config.codebook_weight) == (0.5, 0.1, 1.0)
    assert family("llamagen").convert(source).config.entropy_weight == 0


def test_llamagen_without_averages_names_the_way_out():
    source, _ = golden("llamagen_model")
    with pytest.raises(OptionError, match="no averaged weights .*: take --weights raw"):
        family("llamagen").convert(source, weights="ema")
