"""The laws of a quantizer, over every registered method, codebooks in every layout, and every network."""

import copy
import hashlib
import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vistok import VQModelHF
from vistok.networks import ENCODERS, build_encoder
from vistok.quantizers import Quantizer, Residual, build_quantizer

from ..small_networks import SMALL
from .methods import METHODS, Method, grid_for, latents_for, several_scales

SMALL_NETWORK = {**SMALL, "image_size": 32}
NETWORKS = [config for config in ENCODERS if config.__module__.startswith("vistok.")]


def has_tokens(method: Method) -> bool:
    return method.build().codebook_size > 0


WITH_TOKENS = [method for method in METHODS if has_tokens(method)]
GRIDS = [(), (7,), (4, 5), (2, 3, 2)]
HALF = [torch.bfloat16, torch.float16]
over_methods = pytest.mark.parametrize("method", METHODS, ids=str)
over_methods_with_tokens = pytest.mark.parametrize("method", WITH_TOKENS, ids=str)


def tokens_for(quantizer: Quantizer, batch: int = 6, grid: tuple[int, ...] = (8, 9)) -> Tensor:
    shape = (batch, *quantizer.token_shape(grid_for(quantizer, grid)))
    return torch.randint(quantizer.codebook_size, shape, generator=torch.Generator().manual_seed(1))


def state_hash(quantizer: Quantizer) -> str:
    state = hashlib.sha256()
    for name, tensor in itertools.chain(quantizer.named_parameters(), quantizer.named_buffers()):
        state.update(name.encode())
        state.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def in_range(quantizer: Quantizer, tokens: Tensor) -> bool:
    return tokens.dtype == torch.int64 and bool(((tokens >= 0) & (tokens < quantizer.codebook_size)).all())


def scales_its_stages(quantizer: Quantizer) -> bool:
    """Whether a residual quantizer's entries are fixed, so that stages divide each other's cells."""
    return type(quantizer.quantizers[0]).zoom_in is not Quantizer.zoom_in


# What tokens mean


@over_methods_with_tokens
def test_index_inverts_lookup(method: Method):
    quantizer = method.build()
    tokens = tokens_for(quantizer)
    vectors = quantizer.lookup(tokens)
    assert vectors.dtype == torch.float32
    assert vectors.shape == (6, quantizer.quantized_dim, *grid_for(quantizer, (8, 9)))
    if several_scales(quantizer):
        pytest.skip("the greedy coding of a sum, in test_multi_scale.py")
    # Of learned codebooks the greedy coding is another thing: test_residual_index_is_the_greedy_coding.
    if not isinstance(quantizer, Residual) or scales_its_stages(quantizer):
        assert torch.equal(quantizer.index(vectors), tokens)


@pytest.mark.parametrize("method", [m for m in WITH_TOKENS if isinstance(m.build(), Residual)], ids=str)
def test_residual_index_is_the_greedy_coding(method: Method):
    quantizer = method.build()
    vectors = quantizer.lookup(tokens_for(quantizer))
    left, tokens = vectors, []
    for depth in range(quantizer.num_codebooks):
        stage = quantizer.quantizer(depth)
        tokens.append(stage.index(stage.zoom_in(left, depth) if depth else left))
        entries = stage.lookup(tokens[-1])
        left = left - (stage.zoom_out(entries, depth) if depth else entries)
    assert torch.equal(quantizer.index(vectors), torch.stack(tokens, dim=1))


@over_methods_with_tokens
def test_every_entry_is_a_different_vector(method: Method):
    quantizer = method.build()
    if quantizer.codebook_size > 10_000 or dict(method.values)["num_codebooks"] > 1:
        pytest.skip("sampled by test_index_inverts_lookup")
    shape = quantizer.token_shape(grid_for(quantizer, ()))
    tokens = torch.arange(quantizer.codebook_size).view(-1, *[1] * len(shape)).expand(-1, *shape)
    vectors = quantizer.lookup(tokens)
    assert len(vectors.unique(dim=0)) == quantizer.codebook_size


@over_methods_with_tokens
def test_eval_lookup_of_encode_is_forward(method: Method):
    quantizer = method.build().eval()
    latents = latents_for(quantizer)
    out = quantizer(latents)
    tokens = quantizer.encode(latents)
    assert torch.equal(out.tokens, tokens)
    assert in_range(quantizer, tokens)
    assert tokens.shape == (4, *quantizer.token_shape(tuple(latents.shape[2:])))
    torch.testing.assert_close(quantizer.lookup(tokens), out.quantized, atol=1e-6, rtol=1e-6)
    assert out.losses == {}
    assert out.loss == 0
    evaluated = quantizer.evaluate(latents)
    assert torch.equal(evaluated.tokens, tokens)


@over_methods_with_tokens
def test_training_lookup_of_tokens_is_quantized(method: Method):
    if not dict(method.values).get("straight_through", True):
        pytest.skip("quantizes to a soft mixture in training")
    quantizer = method.build().train()
    quantizer.set_step(0)  # from here on, moving averages wait for the end of the step
    out = quantizer(latents_for(quantizer).requires_grad_())
    assert in_range(quantizer, out.tokens)
    torch.testing.assert_close(quantizer.lookup(out.tokens), out.quantized, atol=1e-5, rtol=1e-5)


@over_methods
def test_gradient_reaches_the_latents(method: Method):
    quantizer = method.build().train()
    latents = latents_for(quantizer).requires_grad_()
    out = quantizer(latents)
    weights = latents_for(quantizer, seed=1)[:, :1]
    (to_quantized,) = torch.autograd.grad((weights * out.quantized).sum(), latents, retain_graph=True)
    assert to_quantized.isfinite().all()
    assert (to_quantized.flatten(2).abs().sum((0, 2)) > 0).all(), "a channel without gradient"
    assert all(loss.ndim == 0 and loss.isfinite() for loss in out.losses.values())
    (out.loss + out.quantized.sum()).backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all() for p in quantizer.parameters() if p.requires_grad
    )


@over_methods_with_tokens  # without tokens, it is the latents themselves
def test_quantized_may_be_changed_in_place(method: Method):
    quantizer = method.build().train()
    latents = latents_for(quantizer).requires_grad_()
    (quantizer(latents).quantized * 1.0).relu_().sum().backward()
    expected, latents.grad = latents.grad, None
    fresh = method.build().train()
    fresh(latents).quantized.relu_().sum().backward()
    torch.testing.assert_close(latents.grad, expected)


# What eval tokens depend on


@over_methods_with_tokens
def test_eval_tokens_depend_on_the_place_alone(method: Method):
    quantizer = method.build().eval()
    latents = latents_for(quantizer, batch=5)
    tokens = quantizer.encode(latents)
    assert torch.equal(quantizer.encode(latents[2:3]), tokens[2:3])
    if not several_scales(quantizer):  # whose tokens are those of a whole picture
        assert torch.equal(quantizer.encode(latents[:, :, 1:2, 3:4]), tokens[..., 1:2, 3:4])
    assert torch.equal(quantizer.encode(latents.flip(0)), tokens.flip(0))
    strided = latents.movedim(1, -1).contiguous().movedim(-1, 1)
    assert torch.equal(quantizer.encode(strided), tokens)
    assert torch.equal(quantizer(latents[2:3]).tokens, tokens[2:3])


@over_methods_with_tokens
def test_eval_tokens_do_not_depend_on_autocast(method: Method):
    quantizer = method.build().eval()
    latents = latents_for(quantizer)
    tokens, vectors = quantizer.encode(latents), quantizer.lookup(quantizer.encode(latents))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer.encode(latents), tokens)
        out = quantizer(latents)
        assert torch.equal(quantizer.lookup(tokens), vectors)
        assert torch.equal(quantizer.index(vectors), quantizer.index(vectors.clone()))
    assert torch.equal(out.tokens, tokens)
    assert out.quantized.dtype == torch.float32


@over_methods_with_tokens
def test_eval_is_not_left_to_chance(method: Method):
    quantizer = method.build().eval()
    latents = latents_for(quantizer)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = quantizer.encode(latents)
    assert torch.equal(quantizer(latents).tokens, first)
    assert torch.equal(torch.get_rng_state(), before), "eval draws random numbers"
    torch.manual_seed(2)
    assert torch.equal(quantizer.encode(latents), first)
    assert torch.equal(quantizer.train().encode(latents), first)


@over_methods
def test_eval_and_encode_change_no_state(method: Method):
    quantizer = method.build()
    latents = latents_for(quantizer)
    before = state_hash(quantizer)
    quantizer.eval()(latents)
    assert state_hash(quantizer) == before
    if has_tokens(method):
        quantizer.train().encode(latents)
        quantizer.lookup(tokens_for(quantizer))
        quantizer.evaluate(latents)
        assert state_hash(quantizer) == before
        assert quantizer.training


@over_methods
def test_the_callers_tensors_are_untouched(method: Method):
    quantizer = method.build().train()
    latents = latents_for(quantizer)
    kept = latents.clone()
    quantizer(latents)
    quantizer(latents.clone().requires_grad_()).quantized.sum().backward()
    quantizer.eval()(latents)
    assert torch.equal(latents, kept)
    assert not latents.requires_grad
    if has_tokens(method):
        tokens = quantizer.encode(latents)
        kept_tokens, vectors = tokens.clone(), quantizer.lookup(tokens)
        kept_vectors = vectors.clone()
        quantizer.index(vectors)
        assert torch.equal(latents, kept)
        assert torch.equal(tokens, kept_tokens)
        assert torch.equal(vectors, kept_vectors)


# Precision


@pytest.mark.parametrize("dtype", HALF)
@over_methods_with_tokens
def test_half_precision_latents_give_the_tokens_of_float32(method: Method, dtype: torch.dtype):
    quantizer = method.build().eval()
    latents = latents_for(quantizer).to(dtype)
    out, exact = quantizer(latents), quantizer(latents.float())
    assert out.quantized.dtype == dtype
    assert torch.equal(out.tokens, exact.tokens)
    assert torch.equal(quantizer.encode(latents), exact.tokens)
    assert torch.equal(out.quantized, exact.quantized.to(dtype))
    quantizer.train()(latents.requires_grad_()).quantized.sum().backward()
    assert latents.grad.dtype == dtype


@pytest.mark.parametrize("dtype", HALF)
@over_methods_with_tokens
def test_codebooks_stay_float32(method: Method, dtype: torch.dtype):
    quantizer = method.build().eval()
    latents, before = latents_for(quantizer), state_hash(quantizer)
    tokens = quantizer.encode(latents)
    assert state_hash(quantizer.to(dtype)) == before
    assert torch.equal(quantizer.to("cpu", dtype).encode(latents), tokens)
    assert state_hash(quantizer.half()) == before


# Errors


@over_methods_with_tokens
@pytest.mark.parametrize("wrong", ["negative", "the codebook size", "2**31 or more"])
def test_tokens_out_of_range_name_the_first_position(method: Method, wrong: str):
    quantizer = method.build()
    size = quantizer.codebook_size
    bad = {"negative": -1, "the codebook size": size, "2**31 or more": max(2**31, size)}[wrong]
    tokens = tokens_for(quantizer, batch=2, grid=(3, 4))
    tokens[(1,) * (tokens.ndim - 1) + (3,)] = bad
    tokens[(1,) * (tokens.ndim - 1) + (2,)] = bad
    position = [*[1] * (tokens.ndim - 1), 2]
    kinds = [torch.int64]
    if wrong == "the codebook size":
        kinds += [
            kind for kind in (torch.uint16, torch.uint32, torch.uint64) if size <= torch.iinfo(kind).max
        ]
    for kind in kinds:
        with pytest.raises(ValueError) as error:
            quantizer.lookup(tokens.to(kind))
        assert str(bad) in str(error.value)
        assert str(position) in str(error.value)
        assert str(size) in str(error.value)


@over_methods_with_tokens
def test_tokens_of_another_kind_or_rank_are_refused(method: Method):
    quantizer = method.build()
    tokens = tokens_for(quantizer, batch=2, grid=(3,)) % 2
    for kind in (torch.float32, torch.bool, torch.complex64):
        with pytest.raises(ValueError, match="integer"):
            quantizer.lookup(tokens.to(kind))
    expected = quantizer.lookup(tokens)
    for kind in (torch.int32, torch.int16, torch.uint8):
        assert torch.equal(quantizer.lookup(tokens.to(kind)), expected)
    wrong = torch.tensor(0) if tokens.ndim == 2 else torch.zeros(2, 2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match="shape"):
        quantizer.lookup(wrong)


@over_methods
def test_latents_of_the_wrong_shape_or_kind_are_refused(method: Method):
    quantizer = method.build()
    calls = {quantizer: quantizer.latent_dim}
    if has_tokens(method):
        calls |= {quantizer.encode: quantizer.latent_dim, quantizer.index: quantizer.quantized_dim}
    grid = grid_for(quantizer, (3,))
    for call, channels in calls.items():
        for shape in ((2, channels + 1, *grid), (channels,), ()):
            with pytest.raises(ValueError, match=rf"{channels}"):
                call(torch.zeros(shape))
        with pytest.raises(ValueError, match="floating-point"):
            call(torch.zeros(2, channels, *grid, dtype=torch.int64))
    for mask in (torch.ones(2, *grid, 4, dtype=torch.bool), torch.ones(2, *grid)):
        with pytest.raises(ValueError, match="bool mask of shape"):
            quantizer(torch.zeros(2, quantizer.latent_dim, *grid), mask)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
@over_methods_with_tokens
def test_latents_that_are_not_finite(method: Method, value: float):
    quantizer = method.build()
    for dtype in (torch.float32, torch.float16):
        latents = latents_for(quantizer).to(dtype)
        latents[1, 0, 2, 3] = value
        latents[1, 0, 2, 4] = value
        with pytest.raises(ValueError, match=r"\[1, 0, 2, 3\]"):
            quantizer.encode(latents)
        for mode in (True, False):
            assert in_range(quantizer, quantizer.train(mode)(latents).tokens)
        assert in_range(quantizer, quantizer(torch.full_like(latents, value)).tokens)


@over_methods_with_tokens
def test_large_finite_latents_are_no_error(method: Method):
    quantizer = method.build()
    latents = latents_for(quantizer, batch=2)
    latents[0] = 3e38  # their sum is not finite
    assert in_range(quantizer, quantizer.encode(latents))


@pytest.mark.parametrize("method", [m for m in METHODS if m not in WITH_TOKENS], ids=str)
def test_what_needs_tokens_says_that_there_are_none(method: Method):
    quantizer = method.build()
    latents = latents_for(quantizer)
    assert quantizer(latents).tokens is None
    for call in (
        lambda: quantizer.encode(latents),
        lambda: quantizer.lookup(torch.zeros(2, 3, dtype=torch.int64)),
        lambda: quantizer.index(latents),
        lambda: quantizer.token_shape((4, 4)),
    ):
        with pytest.raises(ValueError, match="no tokens"):
            call()


# Batches


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@over_methods
def test_grids_of_any_rank_and_batches_of_any_size(method: Method, grid: tuple[int, ...]):
    quantizer = method.build()
    if several_scales(quantizer) and grid != GRIDS[-1]:
        pytest.skip("takes one grid, whichever is asked for")
    grid = grid_for(quantizer, grid)
    for batch, mode in itertools.product((0, 1, 3), (True, False)):
        latents = latents_for(quantizer, batch, grid).requires_grad_()
        out = quantizer.train(mode)(latents)
        assert out.quantized.shape == (batch, quantizer.quantized_dim, *grid)
        assert all(loss.isfinite() for loss in out.losses.values())
        (out.loss + out.quantized.sum()).backward()
        assert latents.grad.isfinite().all()
        if has_tokens(method):
            tokens = quantizer.encode(latents)
            assert tokens.shape == (batch, *quantizer.token_shape(grid))
            assert quantizer.lookup(tokens).shape == out.quantized.shape
            assert quantizer.index(out.quantized.detach()).shape == tokens.shape


@over_methods
def test_a_backward_within_autocast_is_the_same(method: Method):
    if str(method).startswith(("GumbelVQ", "OptVQ", "SimVQ")):
        pytest.skip("its matrix product is torch's own, which autocast makes in bfloat16 there")
    gradients = []
    for enabled in (False, True):
        quantizer = method.build().train()
        latents = latents_for(quantizer).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = quantizer(latents)
            (out.quantized.square().sum() + out.loss).backward()
        gradients.append([latents.grad, *(p.grad for p in quantizer.parameters())])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-4)


def step_of(quantizer: Quantizer, latents: Tensor, weights: Tensor, parts: int) -> list[Tensor]:
    """Gradients and state after one optimizer step on so many micro-batches; the losses of the last one."""
    quantizer.set_step(0)  # from here on, statistics are applied by set_step, not by forward
    leaf = latents.clone().requires_grad_()
    for x, w in zip(leaf.chunk(parts), weights.chunk(parts), strict=True):
        out = quantizer(x)
        ((out.quantized * w).mean() + out.loss).div(parts).backward()
    quantizer.set_step(1)
    gradients = [p.grad.clone() for p in quantizer.parameters() if p.grad is not None]
    return [leaf.grad, *gradients, *(buffer.clone() for buffer in quantizer.buffers())]


@pytest.mark.parametrize("method", [m for m in METHODS if not m.build().batch_statistics], ids=str)
def test_micro_batches_equal_one_batch(method: Method):
    latents = latents_for(method.build(), batch=6).double()
    places = torch.Generator().manual_seed(2)
    weights = torch.randn(6, method.build().quantized_dim, *latents.shape[2:], generator=places).double()
    one, several = (step_of(method.build().double().train(), latents, weights, n) for n in (1, 3))
    for a, b in zip(one, several, strict=True):
        torch.testing.assert_close(b, a, atol=1e-6, rtol=1e-6)


@over_methods
def test_masked_places_have_no_part(method: Method):
    latents = latents_for(method.build(), batch=4)
    mask = torch.ones(4, *latents.shape[2:], dtype=torch.bool)
    mask[:, :, 3:] = False
    garbage = latents.clone()
    garbage[..., 3:] = 1e3
    garbage[0, 0, 0, 3] = float("nan")
    results = []
    for x in (latents, garbage):
        quantizer = method.build().train()
        quantizer.set_step(0)
        leaf = x.clone().requires_grad_()
        out = quantizer(leaf, mask)
        if out.losses:
            out.loss.backward()
            assert not leaf.grad[..., 3:].nan_to_num(nan=1.0).any(), "a gradient at a masked place"
            leaf.grad[..., 3:] = 0
        quantizer.set_step(1)
        kept = [] if leaf.grad is None else [leaf.grad]
        kept += [p.grad for p in quantizer.parameters() if p.grad is not None]
        results.append([out.loss.detach(), out.quantized.detach()[..., :3], *kept, *quantizer.buffers()])
        if has_tokens(method):
            assert in_range(quantizer, out.tokens)
    for a, b in zip(*results, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b)
    everywhere = torch.ones_like(mask)
    out, plain = (method.build().train()(latents, *m) for m in ([everywhere], []))
    torch.testing.assert_close(out.loss, plain.loss)
    torch.testing.assert_close(out.quantized, plain.quantized)


@over_methods
def test_a_mask_of_nothing_gives_losses_of_zero_or_none(method: Method):
    quantizer = method.build().train()
    latents = latents_for(quantizer).requires_grad_()
    before = state_hash(quantizer)
    quantizer.set_step(0)
    out = quantizer(latents, torch.zeros(4, *latents.shape[2:], dtype=torch.bool))
    (out.loss + 0 * out.quantized.sum()).backward()
    assert out.loss == 0
    assert not latents.grad.any()
    assert [name for name, p in quantizer.named_parameters() if p.grad is not None and p.grad.any()] == []
    quantizer.discard_statistics()
    assert state_hash(quantizer) == before


@over_methods
def test_a_frozen_codebook_stays(method: Method):
    quantizer = method.build().train()
    quantizer.freeze_codebook()
    before = state_hash(quantizer)
    latents = latents_for(quantizer).requires_grad_()
    for step in range(3):
        quantizer.set_step(step)
        out = quantizer(latents)
        (out.loss + out.quantized.sum()).backward()
    quantizer.set_step(3)
    assert state_hash(quantizer) == before
    assert all(p.grad is None for p in quantizer.parameters())
    assert latents.grad.any()


@over_methods
def test_a_skipped_step_leaves_no_trace(method: Method):
    quantizer = method.build().train()
    quantizer.set_step(0)
    latents = latents_for(quantizer, batch=8)
    quantizer(latents)  # k-means, where there is one, is over
    quantizer.set_step(1)
    reference = copy.deepcopy(quantizer)
    quantizer(latents_for(quantizer, seed=5))
    quantizer.discard_statistics()
    for one in (quantizer, reference):
        one.set_step(2)
    if "kmeans" not in str(method):  # which does not wait for the step
        assert state_hash(quantizer) == state_hash(reference)


@pytest.mark.parametrize("num_codebooks", [1, 2])
@pytest.mark.parametrize("method", [m for m in WITH_TOKENS if dict(m.values)["num_codebooks"] == 3], ids=str)
def test_the_first_codebooks_decode_alone(method: Method, num_codebooks: int):
    quantizer = method.build()
    tokens = tokens_for(quantizer)
    vectors = quantizer.lookup(tokens, num_codebooks=num_codebooks)
    assert torch.equal(quantizer.lookup(tokens[:, :num_codebooks], num_codebooks=num_codebooks), vectors)
    if isinstance(quantizer, Residual):
        expected = torch.zeros_like(vectors)
        for depth in range(num_codebooks):
            stage = quantizer.quantizer(depth)
            part = stage.lookup(tokens[:, depth])
            expected += stage.zoom_out(part, depth) if depth else part
    else:
        width = quantizer.quantized_dim // 3 * num_codebooks
        expected = quantizer.lookup(tokens)
        expected[:, width:] = 0
    torch.testing.assert_close(vectors, expected)
    assert torch.equal(quantizer.lookup(tokens, num_codebooks=3), quantizer.lookup(tokens))
    for wrong in (0, 4):
        with pytest.raises(ValueError, match="num_codebooks"):
            quantizer.lookup(tokens, num_codebooks=wrong)
    with pytest.raises(ValueError, match="shape"):
        quantizer.lookup(tokens[:, :1], num_codebooks=2)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # of torch itself
@pytest.mark.parametrize("batch", [1, 4])  # the rows of one picture are transposed in memory
@over_methods_with_tokens
def test_traces_as_one_graph(method: Method, batch: int):
    quantizer = method.build()
    latents = latents_for(quantizer, batch).requires_grad_()
    tokens = quantizer.eval().encode(latents)

    def compiled(call):
        torch.compiler.reset()
        return torch.compile(call, fullgraph=True, backend="aot_eager")

    assert torch.equal(compiled(quantizer.encode)(latents), tokens)
    torch.testing.assert_close(compiled(quantizer.lookup)(tokens), quantizer.lookup(tokens))
    assert torch.equal(compiled(quantizer)(latents.detach()).tokens, tokens)
    if "GumbelVQ" in str(method) or "kmeans" in str(method):
        return  # random generators and the first batches are Python's: training has a graph around them
    quantizer.train().set_step(0)

    def step(latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = quantizer(latents)
        return out.quantized, out.tokens, out.loss

    quantized, found, loss = compiled(step)(latents)
    (gradient,) = torch.autograd.grad(quantized.square().sum() + loss, latents)
    out = quantizer(latents)
    (expected,) = torch.autograd.grad(out.quantized.square().sum() + out.loss, latents)
    assert torch.equal(found, out.tokens)
    torch.testing.assert_close(gradient, expected)


# In a model


def small_network(config_class: type):
    values = {name: value for name, value in SMALL_NETWORK.items() if name in config_class.public_fields()}
    return config_class(**values)


def over_pairs(with_every_network: Callable[[Method], bool]) -> pytest.MarkDecorator:
    """Methods with every network, or with one of them in turn: they know nothing of each other."""
    pairs = [
        pytest.param(method, network, id=f"{method}-{network.__name__}")
        for number, method in enumerate(METHODS)
        for place, network in enumerate(NETWORKS)
        if place == number % len(NETWORKS) or with_every_network(method)
    ]
    return pytest.mark.parametrize(("method", "network"), pairs)


def model_of(method: Method, network: type) -> VQModelHF:
    torch.manual_seed(0)
    config, size = small_network(network), 32
    if scales := dict(method.values).get("scales"):
        encoder = build_encoder(config)
        if not hasattr(encoder, "downsample_factor"):
            pytest.skip("its latents are a sequence, which has no scales")
        size = scales[-1] * encoder.downsample_factor
    return VQModelHF(method.config(image_size=size, network=config))


def pictures_for(model: VQModelHF, wider: int = 0) -> Tensor:
    size = model.config.image_size
    of_one_size = several_scales(model.quantizer) or not hasattr(model.encoder, "downsample_factor")
    width = size if of_one_size else size + wider
    return torch.rand(2, 3, size, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


@over_pairs(lambda method: "=" not in str(method))  # variants in turn
def test_saved_and_loaded_is_bit_equal(method: Method, network: type, tmp_path):
    model = model_of(method, network).eval()
    pixel_values = pictures_for(model, wider=16)
    with torch.no_grad():
        before = model(pixel_values)
        model.save_pretrained(tmp_path)
        torch.manual_seed(9)  # what is left to initialization would differ
        loaded = VQModelHF.from_pretrained(tmp_path)  # builds on the meta device
        out = loaded(pixel_values)
    assert type(loaded.config) is type(model.config)
    assert torch.equal(out.reconstruction, before.reconstruction)
    assert torch.equal(out.quantized, before.quantized)
    assert state_hash(loaded.quantizer) == state_hash(model.quantizer)
    if has_tokens(method):
        assert torch.equal(out.tokens, before.tokens)
        assert model.token_shape == tuple(model.encode(pictures_for(model)).tokens.shape[1:])
        assert torch.equal(model.decode(before.tokens), loaded.decode(before.tokens))
        flat = model.get_image_tokens(pixel_values)
        grid = before.quantized.shape[2:]
        flat_grid = grid if len(grid) == 2 else ()  # a sequence has no height and width
        assert torch.equal(model.decode_image_tokens(flat, *flat_grid), model.decode(before.tokens))


@over_methods_with_tokens
def test_loaded_in_bfloat16_keeps_its_codebooks(method: Method, tmp_path):
    model = model_of(method, NETWORKS[0]).eval()
    model.save_pretrained(tmp_path)
    loaded = VQModelHF.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.dtype == torch.bfloat16
    assert state_hash(loaded.quantizer) == state_hash(model.quantizer)
    latents = latents_for(model.quantizer)
    assert torch.equal(loaded.quantizer.encode(latents), model.quantizer.encode(latents))
    assert loaded.encode(pictures_for(model)).quantized.dtype == torch.float32


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_meta_device_then_empty_then_reset(method: Method):
    with torch.device("meta"):
        quantizer = build_quantizer(method.config())
    quantizer.to_empty(device="cpu")
    reference = method.build()
    quantizer.load_state_dict(reference.state_dict(), strict=True)
    for module in quantizer.modules():
        if isinstance(module, Quantizer) and not module.state_dict():
            module.reset_parameters()  # what the state dict leaves out comes from here
    assert state_hash(quantizer) == state_hash(reference)


@over_pairs(lambda method: str(method) in ("FSQ", "VQ-residual-shared"))
def test_gradient_checkpointing_is_equal(method: Method, network: type):
    plain = model_of(method, network).train()
    checkpointed = copy.deepcopy(plain)
    enable = getattr(
        checkpointed, "activation_checkpointing_enable", checkpointed.gradient_checkpointing_enable
    )
    enable()
    pixel_values = pictures_for(plain)
    for model in (plain, checkpointed):
        torch.manual_seed(0)
        out = model(pixel_values)
        ((out.reconstruction - pixel_values).square().mean() + out.loss).backward()
    for (name, one), (_, other) in zip(
        plain.named_parameters(), checkpointed.named_parameters(), strict=True
    ):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            assert torch.equal(one.grad, other.grad), name
