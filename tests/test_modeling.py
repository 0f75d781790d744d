"""VQModelHF with any quantizer and network: pictures to tokens and back, errors, saving and loading."""

import json
import random
import re
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from vistok import (
    ContinuousConfig,
    FSQConfig,
    QuantizerOutput,
    SimpleCNNConfig,
    StridedCNNConfig,
    TokenizerOutput,
    VistokImageProcessor,
    VisualTokenizerConfig,
    VQConfig,
    VQModelHF,
)
from vistok.quantizers import QUANTIZERS

SIMPLE = SimpleCNNConfig(hidden_channels=4, num_res_blocks=1)  # f=4
STRIDED = StridedCNNConfig(hidden_channels=4)  # f=8
ONE_CODEBOOK = dict(num_codebooks=1)
PRODUCT = dict(num_codebooks=3)
SMALL = dict(image_size=32, network=SIMPLE)
RESIDUAL = dict(num_codebooks=3, codebook_layout="residual")
SHARED = dict(num_codebooks=3, shared_codebook=True)
# Those of the library that make tokens: other tests define further ones.
WITH_TOKENS = [c for c in QUANTIZERS if c.__module__.startswith("vistok.") and c is not ContinuousConfig]


def with_scales(config_class) -> bool:
    """Whether its tokens are a sequence of maps, of pictures of one size, with one codebook."""
    return "scales" in config_class.own_fields()


def tokenizer(config_class=VQConfig, network=SIMPLE, image_size=16, **fields) -> VQModelHF:
    torch.manual_seed(0)
    if with_scales(config_class):
        fields = {"scales": [1, image_size // (4 if network is SIMPLE else 8)], **fields}
    return VQModelHF(config_class(image_size=image_size, network=network, **fields)).eval()


def pictures(height=16, width=16, batch=2) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def assert_same_weights(a: VQModelHF, b: VQModelHF):
    for (name, x), (other, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert name == other
        assert x.dtype == y.dtype, name
        assert torch.equal(x, y), name


@pytest.mark.parametrize("network", [SIMPLE, STRIDED], ids=["simple", "strided"])
@pytest.mark.parametrize("codebooks", [ONE_CODEBOOK, PRODUCT, RESIDUAL, SHARED], ids=str)
@pytest.mark.parametrize("config_class", WITH_TOKENS)
class TestShapes:
    def test_encode_decode_and_forward(self, config_class, codebooks, network):
        if with_scales(config_class) and codebooks is not ONE_CODEBOOK:
            pytest.skip("refuses several codebooks")
        model = tokenizer(config_class, network, **codebooks)
        factor = model.downsample_factor
        several = (3,) if codebooks["num_codebooks"] == 3 else ()
        sizes = [(16, 16), (24, 40)]  # square or not, at the trained size or another
        if with_scales(config_class):
            sizes = [(16, 16)]
        for height, width in sizes:
            grid = (height // factor, width // factor)
            shape = (1 + grid[0] * grid[1],) if with_scales(config_class) else (*several, *grid)
            if (height, width) == (16, 16):
                assert model.token_shape == shape
            pixel_values = pictures(height, width)
            encoded = model.encode(pixel_values)
            assert type(encoded) is QuantizerOutput
            assert encoded.tokens.dtype == torch.int64
            assert encoded.tokens.shape == (2, *shape)
            assert encoded.quantized.shape == (2, model.quantizer.quantized_dim, *grid)
            assert encoded.losses == {}
            assert model.encode_latents(pixel_values).shape == (2, model.quantizer.latent_dim, *grid)
            picture = model.decode(encoded.tokens)
            assert picture.shape == pixel_values.shape
            assert torch.equal(picture, model.decode_quantized(encoded.quantized))
            out = model(pixel_values)
            assert type(out) is TokenizerOutput
            assert torch.equal(out.tokens, encoded.tokens)
            torch.testing.assert_close(out.quantized, encoded.quantized)
            torch.testing.assert_close(out.reconstruction, picture)

    def test_flat_tokens_are_rows_with_the_tokens_of_a_place_adjacent(self, config_class, codebooks, network):
        if with_scales(config_class):
            pytest.skip("its tokens are no rows: tests/quantizers/test_multi_scale.py")
        model = tokenizer(config_class, network, **codebooks)
        pixel_values = pictures(24, 40)
        tokens = model.encode(pixel_values).tokens
        height, width = tokens.shape[-2:]
        flat = model.get_image_tokens(pixel_values)
        for place in range(height * width):
            row, column = divmod(place, width)
            assert torch.equal(flat[:, place], tokens[..., row, column])
        assert torch.equal(model.decode_image_tokens(flat, height, width), model.decode(tokens))
        at_trained_size = model.get_image_tokens(pictures())
        assert model.decode_image_tokens(at_trained_size).shape == (2, 3, 16, 16)


def test_a_continuous_tokenizer_reconstructs_without_tokens():
    model = tokenizer(ContinuousConfig, latent_dim=4)
    out = model(pictures())
    assert out.tokens is None
    assert out.losses == {}
    assert torch.equal(model.decode_quantized(model.encode_latents(pictures())), out.reconstruction)
    assert torch.equal(model.encode(pictures()).quantized, out.quantized)
    for call in (
        lambda: model.get_image_tokens(pictures()),
        lambda: model.decode(torch.zeros(1, 4, 4).long()),
    ):
        with pytest.raises(ValueError, match="has no tokens: use encode_latents and decode_quantized"):
            call()


def test_encode_is_the_evaluation_assignment_in_training_too():
    model = tokenizer()
    tokens = model.encode(pictures()).tokens
    out = model.train()(pictures())
    assert set(out.losses) == {"codebook", "commitment"}
    assert out.loss == sum(out.losses.values())
    assert torch.equal(model.encode(pictures()).tokens, tokens)


def test_gradients_reach_every_weight():
    model = tokenizer().train()
    out = model(pictures())
    (out.reconstruction.abs().mean() + out.loss).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("pixel_values", "text"),
    [
        (pictures()[0], "shape (B, 3, H, W), got (3, 16, 16)"),
        (pictures()[:, :1], "shape (B, 3, H, W), got (2, 1, 16, 16)"),
        (pictures().permute(0, 2, 3, 1), "shape (B, 3, H, W), got (2, 16, 16, 3)"),
        (pictures().mul(255).to(torch.uint8), "floating-point pixel_values in [-1, 1], got torch.uint8"),
        (pictures(17, 30), "multiples of 4, got 17 x 30; the nearest that fit: 16 or 20 x 28 or 32"),
        (pictures(3, 16), "multiples of 4, got 3 x 16; the nearest that fit: 4 x 16"),
        (pictures(0, 16), "multiples of 4, got 0 x 16; the nearest that fit: 4 x 16"),
    ],
)
def test_wrong_pixel_values_are_refused(pixel_values, text):
    model = tokenizer()
    for call in (model, model.encode, model.encode_latents, model.get_image_tokens):
        with pytest.raises(ValueError, match=re.escape(text)):
            call(pixel_values)


def test_pixel_values_that_are_not_finite_are_refused_by_encode():
    pixel_values = pictures()
    pixel_values[1, 0, 3, 3] = torch.nan
    with pytest.raises(ValueError, match="finite latents"):
        tokenizer().encode(pixel_values)


@pytest.mark.parametrize(
    ("codebooks", "tokens", "text"),
    [
        (ONE_CODEBOOK, torch.zeros(4, 4).long(), "rank 3, such as (B, 4, 4), got (4, 4)"),
        (ONE_CODEBOOK, torch.zeros(1, 3, 4, 4).long(), "rank 3, such as (B, 4, 4), got (1, 3, 4, 4)"),
        (PRODUCT, torch.zeros(1, 4, 4).long(), "rank 4, such as (B, 3, 4, 4), got (1, 4, 4)"),
        (PRODUCT, torch.zeros(1, 2, 4, 4).long(), "(B, 3, *grid), got (1, 2, 4, 4)"),
        (ONE_CODEBOOK, torch.zeros(1, 4, 4), "integer tokens, got torch.float32"),
        (ONE_CODEBOOK, torch.full((1, 4, 4), 1024), "in [0, 1024), got 1024 at position [0, 0, 0]"),
        (RESIDUAL, torch.full((1, 3, 4, 4), -1), "in [0, 1024), got -1 at position [0, 0, 0, 0]"),
    ],
)
def test_wrong_tokens_are_refused(codebooks, tokens, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        tokenizer(**codebooks).decode(tokens)


@pytest.mark.parametrize(
    ("codebooks", "shape", "size", "text"),
    [
        (ONE_CODEBOOK, (1, 15), {}, "(B, 16) for a grid of 4 x 4, got (1, 15); say height and width"),
        (ONE_CODEBOOK, (1, 16), dict(height=2, width=4), "(B, 8) for a grid of 2 x 4, got (1, 16)"),
        (ONE_CODEBOOK, (1, 4, 4), {}, "(B, 16) for a grid of 4 x 4, got (1, 4, 4)"),
        (PRODUCT, (1, 16), {}, "(B, 16, 3) for a grid of 4 x 4, got (1, 16)"),
        (PRODUCT, (1, 3, 16), {}, "(B, 16, 3) for a grid of 4 x 4, got (1, 3, 16)"),
    ],
)
def test_flat_tokens_that_do_not_fill_the_grid_are_refused(codebooks, shape, size, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        tokenizer(**codebooks).decode_image_tokens(torch.zeros(shape).long(), **size)


def test_an_image_size_that_does_not_fit_the_network_is_refused():
    with pytest.raises(ValueError, match="image_size 20 .* multiples of 8, .* nearest that fit: 16 or 24"):
        tokenizer(network=STRIDED, image_size=20)


def test_a_configuration_without_a_quantizer_is_refused():
    with pytest.raises(ValueError, match="No quantizer is registered for VisualTokenizerConfig"):
        VQModelHF(VisualTokenizerConfig(network=SIMPLE))


def test_an_argument_beside_the_configuration_is_refused():
    with pytest.raises(ValueError, match=r"VQConfig has no field 'levels' \(value \[8\]\)"):
        VQModelHF(VQConfig(), levels=[8])


@pytest.mark.parametrize("codebooks", [ONE_CODEBOOK, PRODUCT, RESIDUAL, SHARED], ids=str)
@pytest.mark.parametrize("config_class", [*WITH_TOKENS, ContinuousConfig])
def test_save_and_load_keep_every_bit(config_class, codebooks, tmp_path):
    if config_class is ContinuousConfig or with_scales(config_class):
        codebooks = ONE_CODEBOOK
    model = tokenizer(config_class, **codebooks)
    model.save_pretrained(tmp_path)
    for loaded in (VQModelHF.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert type(loaded) is VQModelHF
        assert not loaded.training
        assert loaded.config == model.config
        assert_same_weights(loaded, model)
        assert torch.equal(loaded(pictures()).reconstruction, model(pictures()).reconstruction)


def test_a_folder_holds_weights_configuration_processor_and_card(tmp_path):
    tokenizer().save_pretrained(tmp_path)
    names = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"}
    assert {path.name for path in tmp_path.iterdir()} == names
    (tmp_path / "README.md").write_text("mine")
    tokenizer().save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_bfloat16_keeps_codebooks_in_float32(tmp_path):
    model = tokenizer()
    model.save_pretrained(tmp_path)
    pixel_values = pictures()
    for half in (VQModelHF.from_pretrained(tmp_path, dtype=torch.bfloat16), model.to(torch.bfloat16)):
        assert half.dtype == torch.bfloat16
        assert half.quantizer.codebook.dtype == torch.float32
        assert half(pixel_values).reconstruction.dtype == torch.bfloat16
        assert half.decode(half.encode(pixel_values).tokens).dtype == torch.bfloat16
        assert half.encode(pixel_values).quantized.dtype == torch.float32
    assert torch.equal(half.quantizer.codebook, tokenizer().quantizer.codebook)
    half.save_pretrained(tmp_path)
    assert_same_weights(VQModelHF.from_pretrained(tmp_path), half)


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}], ids=str)
def test_a_device_map_places_the_model(tmp_path, device_map):
    model = tokenizer()
    model.save_pretrained(tmp_path)
    loaded = VQModelHF.from_pretrained(tmp_path, device_map=device_map)
    assert torch.equal(loaded.encode(pictures()).tokens.cpu(), model.encode(pictures()).tokens)


def test_shards_load_and_leave_no_stale_weights(tmp_path):
    whole, sharded = tokenizer(), tokenizer(FSQConfig)
    whole.save_pretrained(tmp_path)
    sharded.save_pretrained(tmp_path, max_shard_size="2KB")
    names = {path.name for path in tmp_path.glob("model*")}
    assert len(names) > 2
    assert "model.safetensors" not in names  # loading would prefer it
    assert_same_weights(VQModelHF.from_pretrained(tmp_path), sharded)
    whole.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.glob("model*")} == {"model.safetensors"}
    assert_same_weights(VQModelHF.from_pretrained(tmp_path), whole)


@pytest.fixture
def checkpoint(tmp_path):
    """A folder with a small tokenizer, to damage."""
    tokenizer(codebook_size=8, codebook_dim=4).save_pretrained(tmp_path)
    return tmp_path


def _without(state):
    del state["quantizer.codebook"]


def _with_more(state):
    state["quantizer.usage"] = torch.ones(8)


def _with_fewer_rows(state):
    state["quantizer.codebook"] = state["quantizer.codebook"][:4].contiguous()


def _renamed(state):
    state["quantizer.embedding"] = state.pop("quantizer.codebook")


def _with_a_nan(state):
    state["quantizer.codebook"][3, 2] = torch.nan


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (_without, "missing quantizer.codebook"),
        (_with_more, "left over quantizer.usage"),
        (_with_fewer_rows, "of another shape quantizer.codebook"),
        (_renamed, "missing quantizer.codebook; left over quantizer.embedding"),
        (_with_a_nan, "not finite quantizer.codebook"),
    ],
)
def test_weights_that_do_not_fit_are_named(checkpoint, damage, text):
    state = load_file(checkpoint / "model.safetensors")
    damage(state)
    save_file(state, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"of {re.escape(str(checkpoint))} do not fit VQConfig: {text}$"):
        VQModelHF.from_pretrained(checkpoint)


@pytest.mark.parametrize("length", [0, 7, 8, 100, -100, -1])
def test_a_truncated_file_says_so_in_one_line(checkpoint, length):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(
        ValueError, match="are damaged or incomplete .*: save or download them again$"
    ) as error:
        VQModelHF.from_pretrained(checkpoint)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["{", "{}"])
def test_a_damaged_index_says_so(tmp_path, content):
    tokenizer().save_pretrained(tmp_path, max_shard_size="2KB")
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match="are damaged or incomplete"):
        VQModelHF.from_pretrained(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    tokenizer().save_pretrained(tmp_path, max_shard_size="2KB")
    shard = sorted(tmp_path.glob("model-*"))[1]
    shard.unlink()
    with pytest.raises(OSError, match=shard.name):
        VQModelHF.from_pretrained(tmp_path)


def test_pickles_are_never_read(checkpoint):
    weights = checkpoint / "model.safetensors"
    torch.save(load_file(weights), checkpoint / "pytorch_model.bin")
    weights.unlink()
    for options in ({}, {"use_safetensors": False}):
        with pytest.raises(OSError, match=r"no file named model\.safetensors"):
            VQModelHF.from_pretrained(checkpoint, **options)


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises((OSError, ValueError), match=re.escape(str(folder))):
            VQModelHF.from_pretrained(folder)


def test_mismatches_can_be_allowed_and_seen(checkpoint):
    model, info = VQModelHF.from_pretrained(
        checkpoint, codebook_size=16, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert model.codebook_size == 16
    assert {name for name, *_ in info["mismatched_keys"]} == {"quantizer.codebook"}
    assert model.quantizer.codebook.abs().max() <= 1 / 16  # drawn anew by its reset_parameters
    state = load_file(checkpoint / "model.safetensors")
    _renamed(state)
    save_file(state, checkpoint / "model.safetensors")
    with pytest.raises(ValueError, match="missing quantizer.codebook"):  # sizes may differ, names may not
        VQModelHF.from_pretrained(checkpoint, ignore_mismatched_sizes=True)


def test_checkpointing_gives_the_same_gradients():
    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        model = tokenizer().train()
        if checkpointing:  # its name before and since transformers 5.2x
            name = "activation_checkpointing_enable"
            getattr(model, name if hasattr(model, name) else "gradient_checkpointing_enable")()
            assert any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
        out = model(pictures())
        (out.reconstruction.square().mean() + out.loss).backward()
        return {name: p.grad for name, p in model.named_parameters()}

    plain, checkpointed = gradients(False), gradients(True)
    for name, gradient in plain.items():
        assert torch.equal(gradient, checkpointed[name]), name


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, on importing its compiler
@pytest.mark.parametrize("config_class", [FSQConfig, VQConfig])
def test_encode_and_decode_compile_to_one_graph(config_class):
    model = tokenizer(config_class)
    encode = torch.compile(model.encode, fullgraph=True, backend=ENCODE_BACKENDS[config_class])
    decode = torch.compile(model.decode, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        tokens = encode(pictures()).tokens
        assert torch.equal(tokens, model.encode(pictures()).tokens)
        torch.testing.assert_close(decode(tokens), model.decode(tokens))


# One goes through the real compiler (10 s); of the others it is seen that their graph is whole.
ENCODE_BACKENDS = {FSQConfig: "inductor", VQConfig: "aot_eager"}


# Fuzz: a damaged file of weights gives a model that holds exactly what the file says, or a ValueError.


def _damaged(data: bytes, chance: random.Random) -> bytes:
    """The bytes of a safetensors file with one fault: in a byte, the length, or the header's meaning."""
    size = struct.unpack("<Q", data[:8])[0]
    kind = chance.randrange(6)
    if kind == 0:  # a byte of the header
        place = chance.randrange(8 + size)
        return data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]
    if kind == 1:  # a byte of the weights
        place = chance.randrange(8 + size, len(data))
        return data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]
    if kind == 2:
        return data[: chance.randrange(len(data))]
    if kind == 3:
        return data + bytes(chance.randrange(1, 64))
    header = json.loads(data[8 : 8 + size])
    names = [name for name in header if name != "__metadata__"]
    name, other = chance.sample(names, 2)
    if kind == 4:
        entry, key = header[name], chance.choice(["dtype", "shape", "data_offsets"])
        values = {
            "dtype": ["F16", "BF16", "F64", "I32", "U8", "BOOL", "F8_E4M3", "X", 3, None],
            "shape": [[], [0], [-1], entry["shape"][::-1], [*entry["shape"], 1], [2**62, 4], "x", None],
            "data_offsets": [
                [0, 0],
                entry["data_offsets"][::-1],
                [0, 2**63],
                header[other]["data_offsets"],
                [],
            ],
        }
        entry[key] = chance.choice(values[key])
    else:
        edits = [
            lambda: header.pop(name),
            lambda: header.update({name + "x": header.pop(name)}),
            lambda: header.update({name: header[other], other: header[name]}),
            lambda: header.update({name: header[other]}),
            lambda: header.update({"more": header[name]}),
            lambda: header.update({"__metadata__": chance.choice([{}, {"format": "x"}, 3, None])}),
        ]
        chance.choice(edits)()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def test_a_damaged_file_never_gives_another_model(checkpoint):
    path = checkpoint / "model.safetensors"
    intact = path.read_bytes()
    chance = random.Random(0)
    loaded = 0
    for _ in range(FUZZED_FILES):
        path.write_bytes(_damaged(intact, chance))
        try:
            model = VQModelHF.from_pretrained(checkpoint)
        except ValueError as error:
            assert "\n" not in str(error)
            continue
        loaded += 1
        said = load_file(path)
        held = model.state_dict()
        assert held.keys() == said.keys()
        for name, value in said.items():
            assert torch.equal(held[name], value.to(held[name].dtype)), name
    assert 0 < loaded < FUZZED_FILES


FUZZED_FILES = 1000


def test_a_tuple_on_request():
    model = VQModelHF(FSQConfig(image_size=32, network=SimpleCNNConfig(hidden_channels=8))).eval()
    pixel_values = torch.zeros(1, 3, 32, 32)
    with torch.no_grad():
        assert isinstance(model(pixel_values, return_dict=False), tuple)
        assert torch.equal(model(pixel_values, return_dict=True).reconstruction, model(pixel_values)[-1])


def test_another_model_in_the_same_folder_replaces_what_nobody_wrote(tmp_path):
    for size in (32, 64):
        VQModelHF(FSQConfig(image_size=size, network=SimpleCNNConfig(hidden_channels=8))).save_pretrained(
            tmp_path
        )
        assert VistokImageProcessor.from_pretrained(tmp_path).size["shortest_edge"] == size
        assert f"{size} x {size} pixels" in (tmp_path / "README.md").read_text()
    VistokImageProcessor(do_center_crop=False, size_divisor=4).save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    VQModelHF(FSQConfig(image_size=32, network=SimpleCNNConfig(hidden_channels=8))).save_pretrained(tmp_path)
    assert not VistokImageProcessor.from_pretrained(tmp_path).do_center_crop
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_folder_that_is_not_there_is_said():
    with pytest.raises(ValueError, match="There is no folder '/no/such/folder'"):
        VQModelHF.from_pretrained("/no/such/folder")


@pytest.mark.parametrize("layout", ["product", "residual"])
def test_the_first_codebooks_decode_alone(layout: str):
    torch.manual_seed(0)
    config = VQConfig(codebook_size=16, codebook_dim=4, num_codebooks=3, codebook_layout=layout, **SMALL)
    model = VQModelHF(config).eval()
    tokens = model.encode(torch.rand(2, 3, 32, 32) * 2 - 1).tokens
    for count in (1, 2, 3):
        pictures = model.decode(tokens, num_codebooks=count)
        assert torch.equal(pictures, model.decode(tokens[:, :count], num_codebooks=count))
        assert torch.equal(pictures, model.decode(tokens)) == (count == 3)
    with pytest.raises(ValueError, match="num_codebooks"):
        model.decode(tokens, num_codebooks=4)
    one = VQModelHF(VQConfig(codebook_size=16, codebook_dim=4, **SMALL)).eval()
    with pytest.raises(ValueError, match="one codebook"):
        one.decode(torch.zeros(1, 8, 8, dtype=torch.int64), num_codebooks=1)


def test_a_mask_keeps_padding_out_of_the_losses():
    torch.manual_seed(0)
    model = VQModelHF(VQConfig(codebook_size=16, codebook_dim=4, **SMALL)).train()
    pixel_values = torch.rand(2, 3, 32, 32) * 2 - 1
    mask = torch.ones(2, 8, 8, dtype=torch.bool)
    plain, masked = model(pixel_values).losses, model(pixel_values, mask=mask).losses
    for name, loss in plain.items():
        torch.testing.assert_close(masked[name], loss)
    nothing = model(pixel_values, mask=~mask).losses
    assert all(loss == 0 for loss in nothing.values())
    with pytest.raises(ValueError, match="mask"):
        model(pixel_values, mask=mask[:, :4])


@pytest.mark.parametrize(
    "values",
    [
        {"quantizer_dropout": 0.5},
        {"quantizer_dropout": 0.5, "num_codebooks": 2},
        {"quantizer_dropout": 1.5, "num_codebooks": 2, "codebook_layout": "residual"},
    ],
)
def test_quantizer_dropout_that_makes_no_sense_is_refused(values):
    with pytest.raises(ValueError, match="quantizer_dropout"):
        VQConfig(**values)
