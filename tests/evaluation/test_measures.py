"""Metrics with their networks: what cannot be had is left out and said, or refused where it was asked for."""

import sys

import pytest
import torch
from safetensors.torch import save_file
from skimage import data

from vistok.evaluation import LPIPS, METRICS, Measures, load_measures
from vistok.evaluation.inception import FIDInception, weights_hash
from vistok.evaluation.measures import fitting

from .random_trunks import trunk_file
from .small_inception import SmallInception


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    network = FIDInception()
    save_file(network.state_dict(), folder / "inception.safetensors")
    return {
        "alex": trunk_file("alex", folder),
        "inception": str(folder / "inception.safetensors"),
        "hash": weights_hash(network.state_dict()),
    }


@pytest.fixture(autouse=True)
def _nothing_to_fetch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    monkeypatch.setattr("vistok.evaluation.lpips_weights.locate", lambda source: no_such(source))


def no_such(source: str):
    raise ValueError(f"{source} is no file or folder here")


def test_by_default_what_cannot_be_had_is_left_out_with_a_line_for_each(caplog):
    measures = load_measures()
    assert measures.names == ("l1", "mse", "psnr", "ssim", "ms_ssim")
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0] for line in lines] == [
        "Without lpips_vgg", "Without lpips_alex", "Without rfid, kid, inception_score",
    ]  # fmt: skip
    assert "--lpips_alex_weights" in lines[1] and "--inception_weights FILE" in lines[2]
    assert not any("\n" in line for line in lines)


@pytest.mark.parametrize("name", ["lpips_vgg", "rfid", "inception_score"])
def test_what_was_asked_for_is_refused(name):
    with pytest.raises(ValueError, match="weights|trunk"):
        load_measures([name])


def test_networks_are_described_with_their_hashes(files):
    names = ["psnr", "kid", "lpips_alex"]
    measures = load_measures(
        names, inception_weights=files["inception"], lpips_weights={"alex": files["alex"]}
    )
    assert measures.names == ("psnr", "lpips_alex", "kid")  # in the order of METRICS
    texts = measures.describe()
    assert files["hash"] in texts["inception"]
    assert measures.lpips["lpips_alex"].trunk_sha256 in texts["lpips_alex"]
    assert set(texts) == {"psnr", "kid", "lpips_alex", "inception"}


def test_lpips_is_of_the_rounded_pictures(files):
    network = LPIPS("alex", files["alex"]).eval()
    photograph = torch.from_numpy(data.astronaut()[:64, :64]).movedim(-1, 0)[None]
    other = photograph.flip(-1)
    values = Measures(("lpips_alex",), {"lpips_alex": network}).of_pictures(photograph, other)["lpips_alex"]
    expected = network(photograph / 127.5 - 1, other / 127.5 - 1)
    torch.testing.assert_close(values, expected.double(), rtol=1e-5, atol=0)
    assert values.dtype == torch.float64


def test_unknown_names_are_refused_with_those_there_are():
    for call in (lambda: load_measures(["fid"]), lambda: Measures(("fid",))):
        with pytest.raises(ValueError, match="must be of l1, mse, .*, got 'fid'"):
            call()
    assert len(METRICS) == 10


def test_a_metric_without_its_network_is_refused():
    for name in ("lpips_vgg", "kid"):
        with pytest.raises(ValueError, match=f"{name} needs its network"):
            Measures((name,))


def test_pictures_too_small_for_a_metric_go_without_it_unless_it_was_asked_for(caplog, files):
    measures = load_measures(["ssim", "ms_ssim", "lpips_alex", "l1"], lpips_weights={"alex": files["alex"]})
    assert fitting(measures, 176, None).names == measures.names
    assert fitting(measures, 64, None).names == ("l1", "ssim", "lpips_alex")
    assert fitting(measures, 16, None).names == ("l1", "ssim")
    assert "Without ms_ssim: it needs at least 176 x 176 pixels" in caplog.text
    with pytest.raises(ValueError, match="ms_ssim needs pictures of at least 176 x 176 pixels, got 16"):
        fitting(measures, 16, measures.names)


def test_one_picture_has_no_distribution():
    measures = Measures(("psnr", "rfid", "kid", "inception_score"), inception=SmallInception())
    with pytest.raises(ValueError, match="rfid needs at least 2 pictures, got 1: leave it out"):
        fitting(measures, 64, asked=measures.names, pictures=1)
    assert fitting(measures, 64, asked=None, pictures=1).names == ("psnr", "inception_score")
    for enough in (None, 2):
        assert fitting(measures, 64, asked=measures.names, pictures=enough).names == measures.names
