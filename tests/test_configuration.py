"""Configurations refuse what they do not understand, wherever it comes from, and name field and value."""

import copy
import inspect
import json
import math
import pickle
import random
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, BertConfig, PreTrainedConfig

import vistok
from vistok import (
    ContinuousConfig,
    FSQConfig,
    NetworkConfig,
    Quantizer,
    SimpleCNNConfig,
    StridedCNNConfig,
    VisualTokenizerConfig,
    VQConfig,
    VQModelHF,
)
from vistok.networks import DECODERS, ENCODERS
from vistok.quantizers import QUANTIZERS

# Those of the library: other tests define further ones.
TOKENIZERS = [c for c in QUANTIZERS if c.__module__.startswith("vistok.")]
NETWORKS = [c for c in ENCODERS if c.__module__.startswith("vistok.")]
SMALL = SimpleCNNConfig(hidden_channels=4, num_res_blocks=0)

# What a configuration with this field and value must refuse.
WRONG_VALUES = [
    (FSQConfig, "image_size", "64"),
    (FSQConfig, "image_size", -1),
    (FSQConfig, "image_size", 0),
    (FSQConfig, "image_size", 64.0),
    (FSQConfig, "image_size", True),
    (FSQConfig, "image_size", None),
    (FSQConfig, "num_codebooks", 0),
    (FSQConfig, "codebook_layout", "stacked"),
    (FSQConfig, "shared_codebook", "yes"),
    (FSQConfig, "network", 3),
    (FSQConfig, "levels", 8),
    (FSQConfig, "levels", []),
    (FSQConfig, "levels", [8, 1]),
    (FSQConfig, "levels", [8.0]),
    (FSQConfig, "levels", "8 5 5 5"),
    (FSQConfig, "levels", [2**20] * 4),
    (FSQConfig, "bound", "tanh"),
    (VQConfig, "codebook_size", 0),
    (VQConfig, "codebook_dim", "8"),
    (VQConfig, "normalize", 1),
    (VQConfig, "commitment_weight", "5e-4"),  # as YAML reads it
    (VQConfig, "commitment_weight", -0.5),
    (VQConfig, "commitment_weight", math.nan),
    (VQConfig, "codebook_weight", math.inf),
    (ContinuousConfig, "latent_dim", 0),
    (ContinuousConfig, "num_codebooks", 2),
    (SimpleCNNConfig, "hidden_channels", 0),
    (SimpleCNNConfig, "num_res_blocks", -1),
    (StridedCNNConfig, "num_downsamples", 1.5),
    # transformers' own fields, whose types it does not check
    (FSQConfig, "dtype", "float31"),
    (FSQConfig, "dtype", "int64"),
    (FSQConfig, "dtype", "nn"),
    (FSQConfig, "dtype", 3),
    (FSQConfig, "id2label", 3),
    (FSQConfig, "id2label", {"a": "b"}),
    (FSQConfig, "label2id", ["a"]),
    (FSQConfig, "problem_type", "guessing"),
    (FSQConfig, "return_dict", "no"),
    (FSQConfig, "architectures", "VQModelHF"),
    (FSQConfig, "chunk_size_feed_forward", None),
    (FSQConfig, "output_hidden_states", 3),
    (FSQConfig, "is_encoder_decoder", "no"),
    (FSQConfig, "attn_implementation", 3),
    (FSQConfig, "output_attentions", "yes"),
]
UNKNOWN = [("lvels", [8, 5]), ("num_labels", 3), ("use_cache", True), ("per_layer_config", 3), ("to_dict", 1)]


def refused(field: str):
    return pytest.raises(ValueError, match=rf"\b{re.escape(field)}\b")


def folder_with(tmp_path, config: PreTrainedConfig, **edits):
    """A folder with a configuration's file, edited as by hand."""
    config.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **edits}))
    return tmp_path


@pytest.mark.parametrize(("config_class", "field", "value"), WRONG_VALUES)
class TestWrongValues:
    def test_at_construction(self, config_class, field, value):
        with refused(field) as error:
            config_class(**{field: value})
        assert config_class.__name__ in str(error.value)
        assert "\n" not in str(error.value)

    def test_at_assignment_the_old_value_stays(self, config_class, field, value):
        config = config_class()
        before = copy.deepcopy(config.__dict__)
        with refused(field):
            setattr(config, field, value)
        assert config.__dict__ == before

    def test_at_load(self, config_class, field, value, tmp_path):
        folder = folder_with(tmp_path, config_class(), **{field: value})
        with refused(field):
            config_class.from_pretrained(folder)

    def test_as_an_override(self, config_class, field, value, tmp_path):
        if value is None:
            return  # transformers leaves out overrides of None
        with refused(field):
            config_class.from_pretrained(folder_with(tmp_path, config_class()), **{field: value})


@pytest.mark.parametrize(("field", "value"), UNKNOWN)
class TestUnknownFields:
    def test_at_construction(self, field, value):
        with refused(field) as error:
            FSQConfig(**{field: value})
        assert repr(value) in str(error.value)
        assert "levels, bound" in str(error.value)

    def test_at_assignment(self, field, value):
        config = FSQConfig()
        if not isinstance(getattr(type(config), field, None), property):
            with refused(field):
                setattr(config, field, value)

    @pytest.mark.parametrize("config_class", [FSQConfig, VisualTokenizerConfig, AutoConfig])
    def test_at_load(self, config_class, field, value, tmp_path):
        with refused(field):
            config_class.from_pretrained(folder_with(tmp_path, FSQConfig(), **{field: value}))

    @pytest.mark.parametrize("config_class", [FSQConfig, VisualTokenizerConfig, AutoConfig])
    def test_as_an_override(self, config_class, field, value, tmp_path):
        with refused(field):
            config_class.from_pretrained(folder_with(tmp_path, FSQConfig()), **{field: value})


def test_overrides_of_a_model_are_checked_too(tmp_path):
    VQModelHF(FSQConfig(image_size=16, network=SMALL)).save_pretrained(tmp_path)
    with refused("image_size"):
        VQModelHF.from_pretrained(tmp_path, image_size=-3)
    with refused("lvels"):
        VQModelHF.from_pretrained(tmp_path, lvels=[8, 5])
    with refused("hidden_channels"):
        VQModelHF.from_pretrained(tmp_path, network={"hidden_channels": -8})
    assert VQModelHF.from_pretrained(tmp_path, image_size=32).token_shape == (8, 8)


def test_an_override_of_the_network_keeps_its_other_fields(tmp_path):
    FSQConfig(network=SMALL).save_pretrained(tmp_path)
    network = VisualTokenizerConfig.from_pretrained(tmp_path, network={"hidden_channels": 8}).network
    assert network == SimpleCNNConfig(hidden_channels=8, num_res_blocks=0)


@pytest.mark.parametrize(
    ("network", "text"),
    [
        ({}, "network needs a model_type"),
        ({"hidden_channels": 8}, "network needs a model_type"),
        ({"model_type": 3}, "network needs a model_type"),
        ({"model_type": ["vistok_simple_cnn"]}, "network needs a model_type"),
        ({"model_type": "vistok_nothing"}, "network has unknown model_type 'vistok_nothing'"),
        ({"model_type": "bert"}, "network has model_type 'bert', which is no vistok network"),
        ({"model_type": "vistok_fsq"}, "network has model_type 'vistok_fsq', which is no vistok network"),
        ({"model_type": "vistok_simple_cnn", 3: 4}, "network needs names as keys"),
        ({"model_type": "vistok_simple_cnn", "width": 8}, "SimpleCNNConfig has no field 'width'"),
        ({"model_type": "vistok_simple_cnn", "hidden_channels": "8"}, "'hidden_channels' expected int"),
        (BertConfig(), "network must be a network's configuration"),
        (FSQConfig(), "network must be a network's configuration"),
    ],
)
def test_a_wrong_network_is_named(network, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        FSQConfig(network=network)
    config = FSQConfig(network=SMALL)
    with pytest.raises(ValueError, match=re.escape(text)):
        config.network = network
    assert config.network is SMALL


def test_a_network_is_a_dictionary_or_a_configuration():
    fields = {"model_type": "vistok_strided_cnn", "hidden_channels": 8}
    config = FSQConfig(network=fields)
    assert config.network == StridedCNNConfig(hidden_channels=8)
    assert fields == {"model_type": "vistok_strided_cnn", "hidden_channels": 8}
    assert FSQConfig().network == SimpleCNNConfig()
    assert FSQConfig() == FSQConfig(network={"model_type": "vistok_simple_cnn"})


def test_a_field_of_a_newer_version_says_which_version_is_needed(tmp_path):
    folder = folder_with(tmp_path, FSQConfig(), vistok_version="99.1", dither=0.5)
    with pytest.raises(ValueError, match=r"'dither' \(value 0.5\).* needs vistok >= 99\.1"):
        VisualTokenizerConfig.from_pretrained(folder)
    folder_with(tmp_path, FSQConfig(), vistok_version="0.0.1", dither=0.5)
    with pytest.raises(ValueError, match="'dither'") as error:
        VisualTokenizerConfig.from_pretrained(folder)
    assert "needs vistok" not in str(error.value)
    folder_with(tmp_path, FSQConfig(), vistok_version="99.1")  # newer, but understood
    assert VisualTokenizerConfig.from_pretrained(folder) == FSQConfig()


def test_whole_numbers_are_numbers():
    config = FSQConfig(image_mean=[0, 0, 0], image_std=[1, 1, 1], network=SMALL)
    assert FSQConfig.from_dict(config.to_dict()).image_std == [1, 1, 1]
    with pytest.raises(ValueError, match="image_mean"):
        FSQConfig(image_mean=[True, 0, 0])


def test_the_file_holds_the_fields_and_nothing_else(tmp_path):
    FSQConfig(levels=[8, 5, 5, 5], image_size=64, network=SMALL).save_pretrained(tmp_path)
    file = json.loads((tmp_path / "config.json").read_text())
    assert file.pop("transformers_version")
    assert file == {
        "model_type": "vistok_fsq",
        "vistok_version": vistok.__version__,
        "image_size": 64,
        "num_codebooks": 1,
        "codebook_layout": "product",
        "shared_codebook": False,
        "quantizer_dropout": 0.0,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "levels": [8, 5, 5, 5],
        "bound": "atanh",
        "network": {
            "model_type": "vistok_simple_cnn",
            "hidden_channels": 4,
            "num_res_blocks": 0,
            "num_downsamples": 2,
        },
    }


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "null", '"text"'])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises((ValueError, OSError), match=re.escape(str(tmp_path))):
        VisualTokenizerConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "edit",
    [
        {"model_type": 3},
        {"model_type": ["a"]},
        {"model_type": None},
        {"auto_map": 3},
        {"auto_map": {"AutoConfig": 3}},
        {"configuration_files": 3},
        {"quantization_config": 3},
    ],
)
def test_what_transformers_trips_over_is_a_value_error(tmp_path, edit):
    folder = folder_with(tmp_path, FSQConfig(), **edit)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path)) + "|" + next(iter(edit))):
        VisualTokenizerConfig.from_pretrained(folder)


def test_a_model_type_of_nobody_says_what_to_do(tmp_path):
    folder = folder_with(tmp_path, FSQConfig(), model_type="vistok_nothing")
    for load in (VisualTokenizerConfig, VQModelHF):
        with pytest.raises(
            ValueError, match="model_type 'vistok_nothing'; import the package that defines it"
        ):
            load.from_pretrained(folder)


def test_another_model_is_no_visual_tokenizer(tmp_path):
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no visual tokenizer: its model_type is 'bert'"):
        VisualTokenizerConfig.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'vistok_fsq', got 'vistok_vq'"):
        FSQConfig.from_pretrained(folder_with(tmp_path, VQConfig()))


@pytest.mark.parametrize("config_class", [*TOKENIZERS, *NETWORKS])
def test_copies_are_equal_and_apart(config_class, tmp_path):
    config = config_class()
    path = tmp_path / "config.json"
    path.write_text(config.to_json_string())
    config.save_pretrained(tmp_path / "saved")
    copies = {
        "deepcopy": copy.deepcopy(config),
        "pickle": pickle.loads(pickle.dumps(config)),
        "to_dict": config_class(**config.to_dict()),
        "to_diff_dict": config_class(**config.to_diff_dict()),
        "json": config_class.from_json_file(path),
        "file": config_class.from_pretrained(tmp_path / "saved"),
        "auto": AutoConfig.from_pretrained(tmp_path / "saved"),
    }
    field = config.public_fields()[0]
    for way, other in copies.items():
        assert other == config, way
        with refused(field):
            setattr(other, field, "wrong")
        setattr(other, field, getattr(other, field) + 32)  # channels come in multiples
        assert other != config, way
    assert config == config_class()


def test_equality_is_of_the_same_class():
    assert SimpleCNNConfig(hidden_channels=8) != StridedCNNConfig(hidden_channels=8)
    assert FSQConfig(levels=[8, 5]) == FSQConfig(levels=(8, 5))
    assert FSQConfig() != 3


def test_the_classes_are_registered_by_model_type():
    for config_class in [*TOKENIZERS, *NETWORKS]:
        assert config_class.model_type.startswith("vistok_")
        assert type(AutoConfig.for_model(config_class.model_type)) is config_class


def test_a_class_can_be_defined_again_but_not_by_another():
    def define(module: str) -> type:
        source = "class CellConfig(NetworkConfig):\n    model_type = 'test_defined_again'\n    width: int = 3"
        namespace = {"NetworkConfig": NetworkConfig, "__name__": module}
        exec(source, namespace)
        return namespace["CellConfig"]

    define("notebook")
    again = define("notebook")
    assert type(AutoConfig.for_model("test_defined_again")) is again
    with pytest.raises(ValueError, match="test_defined_again"):
        define("another_package")
    assert type(AutoConfig.for_model("test_defined_again")) is again


def test_a_model_type_of_transformers_cannot_be_taken():
    with pytest.raises(ValueError, match="bert"):
        type("MyConfig", (NetworkConfig,), {"model_type": "bert", "__module__": __name__})


@pytest.mark.parametrize("config_class", TOKENIZERS)
def test_own_fields_are_the_constructor_of_the_quantizer(config_class):
    parameters = inspect.signature(QUANTIZERS[config_class]).parameters
    assert list(parameters) == config_class.own_fields()
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    assert defaults == config_class().own_values()
    assert not set(config_class.own_fields()) & set(VisualTokenizerConfig.__dataclass_fields__)


def test_a_quantizer_with_another_constructor_is_refused():
    config_class = type(
        "DitherConfig",
        (VisualTokenizerConfig,),
        {
            "model_type": "test_dither",
            "__module__": __name__,
            "__annotations__": {"dither": int},
            "dither": 3,
        },
    )

    def define(init):
        hooks = dict.fromkeys(["quantize", "assign", "entries"], lambda self, x: x)
        return type("Dither", (Quantizer,), {"config_class": config_class, "__init__": init, **hooks})

    with pytest.raises(TypeError, match=r"Dither takes \['noise'\].*'dither'"):
        define(lambda self, noise=3: None)
    with pytest.raises(TypeError, match=r"must define quantize"):
        type("Dither", (Quantizer,), {"config_class": config_class})
    assert config_class not in QUANTIZERS
    define(lambda self, dither=3: None)
    assert QUANTIZERS.pop(config_class).__name__ == "Dither"


@pytest.mark.parametrize(
    ("config_class", "field", "value"),
    [
        (config_class, field, value)
        for config_class, field, value in WRONG_VALUES
        if config_class in TOKENIZERS and field in config_class.own_fields()
    ],
)
def test_a_quantizer_alone_refuses_the_same_values(config_class, field, value):
    with refused(field):
        QUANTIZERS[config_class](**{field: value})


@pytest.mark.parametrize("config_class", NETWORKS)
def test_the_constructors_of_a_network_take_its_fields(config_class):
    taken = set(inspect.signature(ENCODERS[config_class]).parameters)
    taken |= set(inspect.signature(DECODERS[config_class]).parameters)
    assert taken - {"in_channels"} == set(config_class.public_fields())


# Fuzz: whatever stands in a field, the configuration loads, or a ValueError names the field.

NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, -(2**63), True, False])
LEAVES = st.none() | NUMBERS | st.text(max_size=5) | st.sampled_from(["float32", "product", "atanh", "auto"])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FUZZED_FIELDS = [
    (config_class, field)
    for config_class in [*TOKENIZERS, *NETWORKS]
    for field in [
        *config_class.__dataclass_fields__,
        "attn_implementation",
        "torch_dtype",
        "auto_map",
        "nothing",
    ]
]
# The messages about a network name the fields inside it.
NAMES_INSIDE = {"network": "network|model_type|NetworkConfig|CNNConfig", "id2label": "label"}


def loads_or_names_the_field(config_class: type, field: str, value) -> bool:
    """Whether a value is taken; raises unless it is taken or refused as it should be."""
    try:
        config = config_class(**{field: value})
    except ValueError as error:
        if not re.search(NAMES_INSIDE.get(field, re.escape(field)), str(error)):
            raise AssertionError(f"{config_class.__name__}({field}={value!r}): {error}") from error
        return False
    assert config_class(**json.loads(config.to_json_string())) == config
    return True


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(FUZZED_FIELDS), VALUES)
def test_any_value_loads_or_raises_a_value_error(field, value):
    loads_or_names_the_field(*field, value)


def test_two_thousand_values_load_or_raise_a_value_error():
    chance = random.Random(0)
    atoms = [
        None,
        True,
        False,
        0,
        1,
        2,
        3,
        64,
        -1,
        2**40,
        10**400,
        0.0,
        0.5,
        -0.5,
        math.nan,
        math.inf,
        "",
        "8",
    ]
    atoms += ["product", "residual", "tan", "float32", "bfloat16", "x" * 1000, b"8", object, torch.float16]
    atoms += [
        [],
        [8],
        [8, 5],
        [1],
        [True],
        [None],
        [[8]],
        (8, 5),
        {},
        {"a": 1},
        {0: "a"},
        {"0": "a"},
        {1.5: "a"},
    ]
    atoms += [{"model_type": "vistok_simple_cnn"}, {"model_type": None}, SMALL, FSQConfig(), torch.ones(2)]
    taken = 0
    for _ in range(2000):
        config_class, field = chance.choice(FUZZED_FIELDS)
        known = config_class.__dataclass_fields__.get(field)
        value = known.default if known and chance.random() < 0.2 else chance.choice(atoms)
        taken += loads_or_names_the_field(config_class, field, value)
    assert 200 < taken < 1500  # the fuzz reaches both ends


def test_a_newer_network_says_which_version_it_needs(tmp_path):
    FSQConfig().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    values["vistok_version"] = "9.9"
    values["network"]["new_field"] = 1
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="new_field.*needs vistok >= 9.9"):
        FSQConfig.from_pretrained(tmp_path)


def test_a_float_field_takes_a_whole_number():
    class Whole(VisualTokenizerConfig):
        model_type = "test_whole_number"
        beta: float = 0.25

    assert Whole(beta=1).beta == 1
    with pytest.raises(ValueError, match="beta"):
        Whole(beta="1")
