import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmarks" / "collapse.py"
sys.path.insert(0, str(SCRIPT.parent))  # where Python finds what a script imports beside it
spec = importlib.util.spec_from_file_location("collapse", SCRIPT)
collapse = importlib.util.module_from_spec(spec)
spec.loader.exec_module(collapse)

TINY = {"codebook_size": 16, "dim": 4, "steps": 300, "batch_size": 256}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the script
    yield
    torch.set_num_threads(threads)


def command(monkeypatch, *arguments: str) -> None:
    flags = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["collapse.py", *flags, *arguments])
    collapse.main()


@pytest.mark.parametrize("name", collapse.METHODS)
def test_every_method_learns(name):
    row = collapse.run(name, collapse.Sizes(**{**TINY, "steps": 100}))
    assert 0 < row["codebook_usage"] <= 1
    at_first = collapse.run(name, collapse.Sizes(**{**TINY, "steps": 1}))
    assert row["distortion"] < at_first["distortion"]


def test_all_entries_begin_in_one_corner_and_their_sums_with_them():
    for name, method in collapse.METHODS.items():
        quantizer = method.build(collapse.Sizes(**TINY))
        if not hasattr(quantizer, "codebook"):
            continue
        collapse.put_in_corner(quantizer, seed=0)
        entries = quantizer.lookup(torch.arange(16).unsqueeze(0))
        assert (entries - collapse.CORNER).abs().max() < 0.1, name
        if hasattr(quantizer, "sums"):
            torch.testing.assert_close(quantizer.sums / quantizer.counts.unsqueeze(1), quantizer.codebook)


def test_the_centres_of_the_clusters_are_not_the_numbers_that_entries_are_drawn_from():
    torch.manual_seed(0)
    entries = torch.randn(16, 4)
    assert not torch.equal(collapse.Clusters(16, 4, seed=0).centres, entries)


def test_large_clusters_are_drawn_more_often():
    data = collapse.Clusters(4, 2, seed=0)
    x = data.draw(20_000)[0].t()
    shares = torch.cdist(x, data.centres).argmin(1).bincount(minlength=4) / len(x)
    torch.testing.assert_close(shares, torch.tensor([12, 6, 4, 3]) / 25, atol=0.02, rtol=0)


def test_the_command_shows_plain_vq_collapse_and_the_remedies_not(monkeypatch, capsys, tmp_path):
    remedies = ["EMAVQ", "VQ, k-means", "OptVQ"]
    command(monkeypatch, "--methods", "VQ", *remedies, "--json", str(tmp_path / "rows.json"))
    rows = {row["method"]: row for row in json.loads((tmp_path / "rows.json").read_text())}
    assert rows["VQ"]["codebook_usage"] <= 0.1 and rows["VQ"]["distortion"] > 0.5
    for name in remedies:
        assert rows[name]["codebook_usage"] >= 0.95 and rows[name]["distortion"] < 0.5
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(rows) and len({line.count("|") for line in table}) == 1


def test_the_command_fails_where_a_remedy_does_not_help(monkeypatch, capsys):
    with pytest.raises(SystemExit, match=r"OptVQ uses .*% of its entries, not 95% to 100%"):
        command(monkeypatch, "--methods", "OptVQ", "--steps", "1")
    capsys.readouterr()


def test_the_toy_is_a_small_moving_picture(tmp_path):
    path = tmp_path / "toy.gif"
    collapse.draw_toy(path, points=20, entries=6, steps=40, every=10)
    with Image.open(path) as picture:
        assert picture.n_frames == 5
        assert picture.size == (640, 350)
        first = picture.convert("RGB").tobytes()
        picture.seek(4)
        assert picture.convert("RGB").tobytes() != first
