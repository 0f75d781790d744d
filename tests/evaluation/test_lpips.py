"""LPIPS against a transcription in float64 that knows nothing of ours; what can be wrong with weights."""

import copy
import hashlib
import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from skimage import data
from torch import Tensor, nn
from torch.nn import functional as F

from tests.evaluation.random_trunks import trunk_file, trunk_weights
from tests.fake_hub import Commit, Repo
from vistok.conversion import read
from vistok.evaluation.lpips import LPIPS
from vistok.evaluation.lpips_weights import trunk_shapes

NETWORKS = ["vgg", "alex"]
HEADS = Path(importlib.util.find_spec("torchmetrics").origin).parent / "functional/image/lpips_models"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trunks")


@pytest.fixture(scope="module", params=NETWORKS)
def lpips(request, folder):
    return LPIPS(request.param, trunk_file(request.param, folder))


@pytest.fixture(scope="module")
def alex(folder):
    return LPIPS("alex", trunk_file("alex", folder))


@pytest.fixture(scope="module")
def pictures() -> tuple[Tensor, Tensor]:
    photographs = (data.astronaut(), data.chelsea())
    crops = torch.stack([torch.from_numpy(photograph[60:92, 80:120]) for photograph in photographs])
    clean = crops.movedim(-1, 1) / 127.5 - 1
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    return (clean + 0.2 * noise).clamp(-1, 1), clean


def vgg16(x: Tensor, weights: dict[str, Tensor]) -> list[Tensor]:
    """The ReLU before each pooling, and the last one: torchvision's `features` 3, 8, 15, 22 and 29."""
    features = []
    for number in range(30):
        if number in (4, 9, 16, 23):
            x = F.max_pool2d(x, 2, 2)
        elif f"features.{number}.weight" in weights:
            x = F.conv2d(x, weights[f"features.{number}.weight"], weights[f"features.{number}.bias"], 1, 1)
        else:
            x = F.relu(x)
        if number in (3, 8, 15, 22, 29):
            features.append(x)
    return features


def alexnet(x: Tensor, weights: dict[str, Tensor]) -> list[Tensor]:
    def conv(x, number, stride, padding):
        weight, bias = (weights[f"features.{number}.{kind}"] for kind in ("weight", "bias"))
        return F.relu(F.conv2d(x, weight, bias, stride, padding))

    first = conv(x, 0, 4, 2)
    second = conv(F.max_pool2d(first, 3, 2), 3, 1, 2)
    third = conv(F.max_pool2d(second, 3, 2), 6, 1, 1)
    fourth = conv(third, 8, 1, 1)
    return [first, second, third, fourth, conv(fourth, 10, 1, 1)]


def transcribed(
    network: str, weights: dict[str, Tensor], a: Tensor, b: Tensor, stages: int = 5, heads: Path = HEADS
) -> Tensor:
    """The formula of lpips 0.1.4, as published: float64 `(B,)`."""
    weights = {name: weight.double() for name, weight in weights.items()}
    shift = torch.tensor([-0.030, -0.088, -0.188]).double().view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).double().view(1, 3, 1, 1)
    trunk = {"vgg": vgg16, "alex": alexnet}[network]
    features = zip(*(trunk((x.double() - shift) / scale, weights) for x in (a, b)), strict=True)
    linear = read(heads / f"{network}.pth").weights("")
    total = torch.zeros(len(a), dtype=torch.float64)
    for number, (f, g) in list(enumerate(features))[:stages]:
        f, g = (x / (torch.sqrt(torch.sum(x**2, dim=1, keepdim=True)) + 1e-10) for x in (f, g))
        total = total + F.conv2d((f - g) ** 2, linear[f"lin{number}.model.1.weight"].double()).mean((1, 2, 3))
    return total


def gradients(distance, a: Tensor, b: Tensor) -> list[Tensor]:
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    (distance(a, b) * torch.tensor([1.0, 2.0])).sum().backward()
    return [a.grad, b.grad]


def close(ours: Tensor, expected: Tensor, tolerance: float) -> bool:
    return float((ours.double() - expected.double()).abs().max() / expected.double().abs().max()) < tolerance


def test_distances_are_those_of_the_formula(lpips, pictures):
    weights = trunk_weights(lpips.network)
    ours, expected = lpips(*pictures), transcribed(lpips.network, weights, *pictures)
    assert ours.dtype == torch.float32
    assert ours.shape == (2,)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=0)
    assert float(expected.min()) > 0.01


def test_gradients_of_both_are_those_of_the_formula(lpips, pictures):
    weights = trunk_weights(lpips.network)
    expected = gradients(lambda a, b: transcribed(lpips.network, weights, a, b), *pictures)
    for ours, theirs in zip(gradients(lpips, *pictures), expected, strict=True):
        assert close(ours, theirs, 1e-4)


def test_the_heads_are_the_published_ones():
    # The MD5 of lpips' weights/v0.1/vgg.pth, by which taming-transformers checks its download.
    assert hashlib.md5((HEADS / "vgg.pth").read_bytes()).hexdigest() == "d507d7349b931f0638a25a48a722f98a"


def test_equal_pictures_have_distance_zero_and_which_is_which_does_not_matter(lpips, pictures):
    assert lpips(pictures[1], pictures[1].clone()).tolist() == [0, 0]
    assert torch.equal(lpips(*pictures), lpips(*reversed(pictures)))


def test_a_picture_has_its_distance_in_any_batch(lpips, pictures):
    alone = torch.cat([lpips(a[None], b[None]) for a, b in zip(*pictures, strict=True)])
    torch.testing.assert_close(alone, lpips(*pictures), rtol=1e-5, atol=0)


def test_callers_tensors_are_left_alone(alex, pictures):
    before = copy.deepcopy(pictures)
    alex(*pictures)
    assert all(torch.equal(a, b) for a, b in zip(before, pictures, strict=True))


def test_nothing_drops_out_or_changes_in_training(lpips, pictures):
    expected = lpips(*pictures)
    lpips.train()
    assert torch.equal(lpips(*pictures), expected)
    assert torch.equal(lpips(*pictures), expected)


def test_autocast_changes_nothing(lpips, pictures):
    expected = [lpips(*pictures), *gradients(lpips, *pictures)]
    with torch.autocast("cpu", torch.bfloat16):
        ours = [lpips(*pictures), *gradients(lpips, *pictures)]
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_parent_of_another_precision_changes_nothing(alex, pictures, dtype):
    expected = alex(*pictures)
    parent = nn.ModuleDict({"lpips": copy.deepcopy(alex), "other": nn.Linear(1, 1)}).to(dtype)
    assert parent["other"].weight.dtype == dtype
    assert torch.equal(parent["lpips"](*pictures), expected)


def test_it_follows_its_parent_to_another_device(alex):
    parent = nn.ModuleDict({"lpips": copy.deepcopy(alex)}).to("meta", torch.bfloat16)
    buffers = list(parent.buffers())
    assert len(buffers) == 5 * 2 + 5 + 2
    assert {(buffer.device.type, buffer.dtype) for buffer in buffers} == {("meta", torch.float32)}


def test_half_precision_pictures_are_measured_in_full_precision(alex, pictures):
    halves = [picture.bfloat16() for picture in pictures]
    assert torch.equal(alex(*halves), alex(*(picture.float() for picture in halves)))


def test_it_has_nothing_to_train_or_to_save(lpips):
    assert list(lpips.parameters()) == []
    assert lpips.state_dict() == {}
    assert not any(buffer.requires_grad for buffer in lpips.buffers())


def test_no_graph_is_kept_of_what_needs_no_gradient(alex, pictures):
    assert not alex(*pictures).requires_grad
    a = pictures[0].clone().requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        alex(a, pictures[1])
        one = len(kept)
        alex(a, pictures[1].clone().requires_grad_())
    assert len(kept) - one > 1.5 * one


def test_features_of_zeros_have_the_gradient_of_the_other_stages(folder, pictures):
    weights = trunk_weights("alex")
    weights["features.10.bias"].fill_(-1e4)
    save_file(weights, folder / "dark.safetensors")
    dark = LPIPS("alex", str(folder / "dark.safetensors"))
    torch.testing.assert_close(
        dark(*pictures).double(), transcribed("alex", weights, *pictures), rtol=1e-5, atol=0
    )
    [expected, _] = gradients(lambda a, b: transcribed("alex", weights, a, b, stages=4), *pictures)
    with torch.autograd.set_detect_anomaly(True):
        assert close(gradients(dark, *pictures)[0], expected, 1e-4)
        with pytest.raises(RuntimeError, match="returned nan"):  # of the formula, before a ReLU hides it
            gradients(lambda a, b: transcribed("alex", weights, a, b), *pictures)


def test_features_of_zeros_beside_others_have_a_finite_gradient(folder, pictures):
    weights = trunk_weights("alex")
    weights["features.0.weight"].abs_()  # black gives zeros, white does not
    weights["features.0.bias"].zero_()
    save_file(weights, folder / "light.safetensors")
    light = LPIPS("alex", str(folder / "light.safetensors"))
    black, white = -torch.ones(2, 3, 40, 40), torch.ones(2, 3, 40, 40)
    for a, b in ((black, white), (white, black), (black, black)):
        assert all(gradient.isfinite().all() for gradient in gradients(light, a, b))
    assert float(light(black, white).min()) > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_of_any_float_dtype_are_taken(folder, pictures, dtype):
    weights = {name: weight.bfloat16().to(dtype) for name, weight in trunk_weights("alex").items()}
    path = folder / f"{dtype}.safetensors"
    save_file(weights, path)
    loaded = LPIPS("alex", str(path))
    torch.testing.assert_close(
        loaded(*pictures).double(), transcribed("alex", weights, *pictures), rtol=1e-5, atol=0
    )


def test_it_says_which_files_it_was_made_of(lpips, folder):
    trunk, heads = Path(trunk_file(lpips.network, folder)), HEADS / f"{lpips.network}.pth"
    assert lpips.trunk_sha256 == hashlib.sha256(trunk.read_bytes()).hexdigest()
    assert lpips.heads_sha256 == hashlib.sha256(heads.read_bytes()).hexdigest()


def test_torchvisions_own_file_is_taken_with_its_classifier(folder, alex, pictures):
    path = folder / "alexnet-owt-7be5be79.pth"
    torch.save(trunk_weights("alex") | {"classifier.6.weight": torch.zeros(1000, 8)}, path)
    assert torch.equal(LPIPS("alex", str(path))(*pictures), alex(*pictures))


def test_pictures_that_are_just_large_enough(lpips):
    network, size = lpips.network, lpips.smallest
    weights = trunk_weights(network)
    a, b = torch.rand(2, 1, 3, size, size + 5) * 2 - 1
    torch.testing.assert_close(lpips(a, b).double(), transcribed(network, weights, a, b), rtol=1e-5, atol=0)
    with pytest.raises(RuntimeError):  # there is nothing to measure
        transcribed(network, weights, a[:, :, 1:], b[:, :, 1:])
    with pytest.raises(
        ValueError, match=f"needs pictures of at least {size} x {size} pixels, got {size - 1} x"
    ):
        lpips(a[:, :, 1:], b[:, :, 1:])


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (
            torch.zeros(1, 3, 40, 40),
            torch.zeros(2, 3, 40, 40),
            r"one shape \(B, 3, H, W\), got \(1, 3, 40, 40\)",
        ),
        (torch.zeros(3, 40, 40), torch.zeros(3, 40, 40), r"one shape \(B, 3, H, W\), got \(3, 40, 40\)"),
        (torch.zeros(1, 1, 40, 40), torch.zeros(1, 1, 40, 40), r"got \(1, 1, 40, 40\)"),
        (
            torch.zeros(1, 3, 40, 40),
            torch.zeros(1, 3, 40, 40).byte(),
            r"floats in \[-1, 1\], got torch.uint8",
        ),
    ],
)
def test_what_are_no_pictures(alex, a, b, message):
    with pytest.raises(ValueError, match=message):
        alex(a, b)


def refusal(network: str, source: str | Path | None) -> str:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  its message is what is tested
        LPIPS(network, None if source is None else str(source))
    message = str(refused.value)
    assert len(message.splitlines()) == 1
    assert len(message) <= 700
    return message


REMEDY = "give trunk_weights a local safetensors file, a Hub id, or the file of https://download.pytorch.org/"


def test_an_unknown_network():
    assert refusal("squeeze", None) == "network must be one of 'vgg', 'alex', got 'squeeze'"
    with pytest.raises(ValueError, match="got 'resnet'"):
        trunk_shapes("resnet")


def test_alexnet_has_no_default():
    message = refusal("alex", None)
    assert message.startswith("The trunk of LPIPS by 'alex' has no default weights: " + REMEDY)
    assert message.endswith("models/alexnet-owt-7be5be79.pth")


def test_files_that_are_not_there_or_no_weights(tmp_path):
    (tmp_path / "text.safetensors").write_text("no weights at all")
    (tmp_path / "empty").mkdir()
    for source, reason in (
        (tmp_path / "nowhere.safetensors", "There is no file or folder"),
        (tmp_path / "text.safetensors", "is no safetensors file"),
        (tmp_path / "empty", "holds no checkpoint"),
    ):
        message = refusal("vgg", source)
        assert message.startswith("The trunk of LPIPS by 'vgg' cannot be loaded: ")
        assert reason in message
        assert REMEDY in message


def test_weights_that_do_not_fit(tmp_path, folder):
    path = tmp_path / "wrong.safetensors"
    good = trunk_weights("alex")
    for change, reason in (
        ({"features.0.weight": None}, "do not fit: missing: features.0.weight; give"),
        (
            {"features.3.bias": torch.zeros(191)},
            "another shape: features.3.bias (191,) instead of (192,); give",
        ),
        ({"features.3.bias": torch.zeros(192).int()}, "not floats: features.3.bias; give"),
        ({"features.3.bias": torch.full([192], math.nan)}, "not finite: features.3.bias; give"),
        ({"features.12.weight": torch.zeros(1)}, "of another network: features.12.weight; give"),
    ):
        save_file({name: w for name, w in (good | change).items() if w is not None}, path)
        message = refusal("alex", path)
        assert reason in message
        assert REMEDY in message
    message = refusal("vgg", trunk_file("alex", folder))
    assert "missing: features.2.weight, features.2.bias, features.5.weight and 19 more" in message
    assert REMEDY in message


def test_without_torchmetrics(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    message = refusal("alex", trunk_file("alex", folder))
    assert message == 'LPIPS needs the linear heads that torchmetrics ships: pip install "vistok[train]"'


def torchmetrics_at(folder: Path, monkeypatch) -> Path:
    """An installation of torchmetrics there; the folder of its heads."""
    heads = folder / "torchmetrics" / "functional" / "image" / "lpips_models"
    heads.mkdir(parents=True)
    spec = importlib.util.spec_from_file_location("torchmetrics", folder / "torchmetrics" / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    return heads


def test_the_heads_of_torchmetrics_count(tmp_path, folder, pictures, monkeypatch):
    heads = torchmetrics_at(tmp_path, monkeypatch)
    channels = [64, 192, 384, 256, 256]
    others = {
        f"lin{number}.model.1.weight": torch.rand(1, size, 1, 1) for number, size in enumerate(channels)
    }
    torch.save(others, heads / "alex.pth")
    loaded = LPIPS("alex", trunk_file("alex", folder))
    expected = transcribed("alex", trunk_weights("alex"), *pictures, heads=heads)
    torch.testing.assert_close(loaded(*pictures).double(), expected, rtol=1e-5, atol=0)


def test_a_torchmetrics_without_the_heads(tmp_path, folder, monkeypatch):
    heads = torchmetrics_at(tmp_path, monkeypatch)
    message = refusal("alex", trunk_file("alex", folder))
    assert message.startswith("LPIPS lacks the linear heads that torchmetrics ships: ")
    assert message.endswith("alex.pth is not there; pip install --force-reinstall torchmetrics")
    torch.save({"lin0.model.1.weight": torch.zeros(1, 63, 1, 1)}, heads / "alex.pth")
    message = refusal("alex", trunk_file("alex", folder))
    assert "missing: lin1.model.1.weight, lin2.model.1.weight, lin3.model.1.weight and 1 more; " in message
    assert "lin0.model.1.weight (1, 63, 1, 1) instead of (1, 64, 1, 1); pip install" in message


@pytest.fixture
def on_the_hub(hub, monkeypatch):
    def put(repo_id: str, files: dict[str, bytes], **kind: bool) -> None:
        oid = hashlib.sha1(repo_id.encode()).hexdigest()
        monkeypatch.setitem(hub.repos, ("model", repo_id), Repo([Commit(oid, files)], **kind))

    return put


def test_weights_from_the_hub(on_the_hub, folder, alex, pictures):
    weights = Path(trunk_file("alex", folder)).read_bytes()
    on_the_hub("org/trunk", {"model.safetensors": weights, "config.json": b"{}"})
    on_the_hub("org/trunks", {"networks/alexnet.safetensors": weights})
    for source in ("org/trunk", "org/trunks/networks/alexnet.safetensors"):
        loaded = LPIPS("alex", source)
        assert torch.equal(loaded(*pictures), alex(*pictures))
        assert loaded.trunk_sha256 == alex.trunk_sha256


def test_the_default_of_vgg_is_timms_copy_of_torchvisions(on_the_hub, folder):
    path = Path(trunk_file("vgg", folder))
    files = load_file(path) | {"head.fc.bias": torch.zeros(1000)}  # as timm names the classifier
    save_file(files, folder / "timm.safetensors")
    on_the_hub("timm/vgg16.tv_in1k", {"model.safetensors": (folder / "timm.safetensors").read_bytes()})
    picture = torch.rand(2, 1, 3, 16, 16) * 2 - 1
    assert torch.equal(LPIPS()(*picture), LPIPS("vgg", str(path))(*picture))


def test_repositories_that_are_closed_or_not_there(on_the_hub, hub):
    on_the_hub("org/closed-trunk", {"model.safetensors": b"weights"}, gated=True)
    on_the_hub("org/no-trunk", {"README.md": b"nothing"})
    for source, reason in (
        ("org/closed-trunk", "org/closed-trunk is gated: ask for access at "),
        ("org/never-seen", "the Hub shows you no repository org/never-seen"),
        ("org/no-trunk", "org/no-trunk holds no checkpoint"),
    ):
        message = refusal("vgg", source)
        assert reason in message
        assert REMEDY in message


def test_without_a_network(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("the network is down")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    message = refusal("vgg", "org/far-away")
    assert "nor in the cache of the Hub, which cannot be reached: the network is down" in message
    assert REMEDY in message
