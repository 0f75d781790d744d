"""visual-tokenizer-pytorch's VQGAN, of which there is no golden file: its layers under its names."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.conversion.golden_cases import close
from vistok import EMAVQConfig, FSQConfig, IBQConfig, LFQConfig, SimVQConfig, VQConfig
from vistok.conversion.base import OptionError, Source
from vistok.conversion.visual_tokenizer import FAMILY

WIDTHS, RES_BLOCKS, Z = [32, 64, 64], 2, 16


class Block(nn.Module):
    def __init__(self, before: int, after: int):
        super().__init__()
        norms = [nn.GroupNorm(32, channels, eps=1e-6) for channels in (before, after)]
        convs = [nn.Conv2d(channels, after, 3, padding=1) for channels in (before, after)]
        self.block = nn.Sequential(
            norms[0], nn.SiLU(), convs[0], norms[1], nn.SiLU(), nn.Dropout(0.0), convs[1]
        )
        self.shortcut = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + self.shortcut(x)


class Attention(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.GroupNorm(32, channels)  # with torch's own epsilon
        self.q, self.k, self.v, self.proj = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(x)
        q, k, v = (layer(hidden).flatten(2) for layer in (self.q, self.k, self.v))
        shares = (q.transpose(1, 2) @ k * x.shape[1] ** -0.5).softmax(2)
        return x + self.proj((v @ shares.transpose(1, 2)).view(x.shape))


class Down(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Up(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0))


def level(before: int, after: int, blocks: int, attends: bool, resampling: nn.Module | None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(blocks):
        layers.append(Block(after if number else before, after))
        layers += [Attention(after)] if attends else []
    return nn.Sequential(*layers, *([resampling] if resampling else []))


def bottleneck(channels: int) -> nn.Sequential:
    return nn.Sequential(Block(channels, channels), Attention(channels), Block(channels, channels))


def head(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.GroupNorm(32, before, eps=1e-6), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1)
    )


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_in = nn.Conv2d(3, WIDTHS[0], 3, padding=1)
        last = len(WIDTHS) - 1
        self.down_blocks = nn.ModuleList(
            level(WIDTHS[max(0, i - 1)], w, RES_BLOCKS, i == last, Down(w) if i < last else None)
            for i, w in enumerate(WIDTHS)
        )
        self.bottleneck_block = bottleneck(WIDTHS[-1])
        self.out_block = head(WIDTHS[-1], Z)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for layers in self.down_blocks:
            x = layers(x)
        return self.out_block(self.bottleneck_block(x))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        widths = WIDTHS[::-1]
        self.in_block = nn.Conv2d(Z, widths[0], 3, padding=1)
        self.bottleneck_block = bottleneck(widths[0])
        self.up_blocks = nn.ModuleList(
            level(widths[max(0, i - 1)], w, RES_BLOCKS + 1, i == 0, Up(w) if i < len(widths) - 1 else None)
            for i, w in enumerate(widths)
        )
        self.conv_out = head(widths[-1], 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bottleneck_block(self.in_block(x))
        for layers in self.up_blocks:
            x = layers(x)
        return self.conv_out(x)


class Original(nn.Module):
    """Encoder, decoder and the 1x1 convolutions between; the quantizer's tensors are made by the cases."""

    def __init__(self, dim: int):
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
        self.enc2code, self.code2dec = nn.Conv2d(Z, dim, 1), nn.Conv2d(dim, Z, 1)


def original(dim: int) -> Original:
    torch.manual_seed(0)
    network = Original(dim)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:  # norms and biases, whose initial values would hide a mistake
            nn.init.normal_(parameter, mean=float("weight" in name), std=0.3)
    with torch.no_grad():  # latents of mean 0 and deviation 1 in each channel, to get many tokens
        features = network.encoder(pictures())
        projection = network.enc2code
        deviation, mean = torch.std_mean(projection(features), dim=(0, 2, 3))
        projection.bias.sub_(mean).div_(deviation)
        projection.weight.div_(deviation.view(-1, 1, 1, 1))
    return network.eval()


def pictures() -> Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


def converted(network: Original, quantizer: dict[str, Tensor], settings: dict):
    source = Source("model.pt", {"model": {**network.state_dict(), **quantizer}}, settings, ("step",))
    return FAMILY.convert(source).model("model.pt")


QUANTIZERS = {  # target, parameters, tensors, the configuration
    "VQ": ("VectorQuantizer", {}, {"codebook.weight": (32, 6)}, VQConfig),
    "VQ, normalized": ("VectorQuantizer", {"l2_norm": True}, {"codebook.weight": (32, 6)}, VQConfig),
    "EMA": (
        "VectorQuantizer",
        {"use_ema_update": True, "ema_decay": 0.9},
        {"codebook.weight": (32, 6), "ema_sumz": (32, 6), "ema_sumn": (32,)},
        EMAVQConfig,
    ),
    "FSQ": ("FiniteScalarQuantizer", {"levels": [8, 5, 5, 5]}, {}, FSQConfig),
    "LFQ": ("LookupFreeQuantizer", {"dim": 7}, {}, LFQConfig),
    "SimVQ": (
        "SimVQQuantizer",
        {},
        {"codebook.weight": (32, 6), "codebook_proj.weight": (6, 6), "codebook_proj.bias": (6,)},
        SimVQConfig,
    ),
    "IBQ": ("IndexBackpropagationQuantizer", {}, {"codebook.weight": (32, 6)}, IBQConfig),
}


@pytest.mark.parametrize("name", QUANTIZERS)
@torch.no_grad()
def test_vqgan_with_each_quantizer(name: str):
    target, parameters, shapes, config_class = QUANTIZERS[name]
    dim = {"FSQ": 4, "LFQ": 7}.get(name, 6)
    network = original(dim)
    tensors = {f"quantizer.{key}": torch.randn(shape) for key, shape in shapes.items()}
    if "quantizer.ema_sumn" in tensors:
        tensors["quantizer.ema_sumn"].abs_()
    settings = {"quantizer": {"target": f"models.quantizer.{target}", "params": parameters}}
    model = converted(network, tensors, settings)
    assert type(model.config) is config_class
    assert model.config.network.attention_levels == [2]
    latents = network.enc2code(network.encoder(pictures()))
    close(model.encode_latents(pictures()), latents, "latents")
    out = model.encode(pictures())
    rows = latents.movedim(1, -1).flatten(0, 2)
    entries = tensors.get("quantizer.codebook.weight")
    if name == "FSQ":
        wanted = out.tokens  # its numbers are those of the golden file; here, that they decode
    elif name == "LFQ":
        wanted = ((rows > 0) * 2 ** torch.arange(7)).sum(1)
    elif name == "IBQ":
        wanted = (rows @ entries.T).argmax(1)
    else:
        if name == "SimVQ":
            entries = F.linear(
                entries, tensors["quantizer.codebook_proj.weight"], tensors["quantizer.codebook_proj.bias"]
            )
        if name == "VQ, normalized":
            rows, entries = F.normalize(rows, dim=1), F.normalize(entries, dim=1)
        wanted = torch.cdist(rows, entries).argmin(1)
    assert torch.equal(out.tokens, wanted.view(out.tokens.shape))
    assert len(out.tokens.unique()) > 5
    close(model.decode(out.tokens), network.decoder(network.code2dec(out.quantized)), "reconstruction")
    if name == "EMA":
        assert torch.equal(model.quantizer.sums, tensors["quantizer.ema_sumz"])
        assert torch.equal(model.quantizer.counts, tensors["quantizer.ema_sumn"])
        assert model.config.decay == 0.9


def test_without_levels_it_asks_for_them():
    with pytest.raises(ValueError, match="one number for each of the 4 channels"):
        converted(original(4), {}, {})


TRAINED = {"coef_commit": 0.5, "coef_entropy": 0.2, "coef_vq": 0.7}
REGULARIZED = {"use_entropy_reg": True, "entropy_reg_temp": 0.05}
ENTROPY = {"entropy_weight": 0.2, "entropy_temperature": 0.05}
NONE = {"entropy_weight": 0.0, "entropy_temperature": 0.01}


@pytest.mark.parametrize(
    ("name", "parameters", "train", "wanted"),
    [
        ("VQ", REGULARIZED, TRAINED, {"commitment_weight": 0.5, "codebook_weight": 0.7, **ENTROPY}),
        ("VQ", {}, TRAINED, {"commitment_weight": 0.5, "codebook_weight": 0.7, **NONE}),
        ("VQ", {}, {}, {"commitment_weight": 0.25, "codebook_weight": 1.0, **NONE}),
        ("EMA", {}, TRAINED, {"commitment_weight": 0.5}),
        ("SimVQ", {}, TRAINED, {"commitment_weight": 0.5, "codebook_weight": 0.7}),
        ("LFQ", REGULARIZED, TRAINED, {"commitment_weight": 0.5, **ENTROPY}),
        ("LFQ", {}, {}, {"commitment_weight": 0.25, "entropy_weight": 0.1, "entropy_temperature": 0.01}),
        ("LFQ", {}, {"coef_vq": 1.0}, {"commitment_weight": 0.25, **NONE}),  # of train_vqgan.py
        ("LFQ", {"use_entropy_reg": False}, TRAINED, NONE),
        (
            "IBQ",
            REGULARIZED,
            TRAINED,
            {"commitment_weight": 0.5, "codebook_weight": 0.7, "double_quantization_weight": 0.7, **ENTROPY},
        ),
        ("IBQ", {}, {"coef_commit": 0.25}, {"normalize": False, "codebook_weight": 1.0, **NONE}),
    ],
)
def test_the_weights_of_losses_are_the_files(name, parameters, train, wanted):
    target, _, shapes, _ = QUANTIZERS[name]
    tensors = {f"quantizer.{key}": torch.ones(shape) for key, shape in shapes.items()}
    settings = {"quantizer": {"target": f"models.quantizer.{target}", "params": parameters}, "train": train}
    network = original({"LFQ": 7}.get(name, 6))
    config = FAMILY.convert(Source("model.pt", {"": {**network.state_dict(), **tensors}}, settings)).config
    assert {field: getattr(config, field) for field in wanted} == wanted


@pytest.mark.parametrize("name", ["VQ", "LFQ"])
def test_levels_are_only_of_fsq(name):
    target, _, shapes, _ = QUANTIZERS[name]
    tensors = {f"quantizer.{key}": torch.ones(shape) for key, shape in shapes.items()}
    source = Source(
        "model.pt", {"": {**original(6).state_dict(), **tensors}}, {"quantizer": {"target": f"x.{target}"}}
    )
    with pytest.raises(OptionError, match="--levels 8 8 are of FSQ, and its quantizer is another"):
        FAMILY.convert(source, levels=[8, 8])
