"""Results as files: strict JSON that comes back, names that tell models apart, tables and plots that open."""

import io
import json
import math

import pytest
from PIL import Image

from vistok.evaluation.report import comparison, named, read_all, read_results, to_json

from .test_tables import result


def test_json_is_strict_and_comes_back(tmp_path):
    given = result("a", math.inf)
    (tmp_path / "eval_results.json").write_text(to_json(given))
    text = (tmp_path / "eval_results.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["metrics"]["psnr"] == "inf"
    assert read_results(tmp_path) == read_results(tmp_path / "eval_results.json") == given


def test_results_of_a_training_run_have_the_name_of_its_folder(tmp_path):
    given = result("a", 20.0)
    del given["name"], given["group"]
    (tmp_path / "run-7").mkdir()
    (tmp_path / "run-7" / "eval_results.json").write_text(json.dumps(given))
    read = read_results(tmp_path / "run-7")
    assert (read["name"], read["group"]) == ("run-7", "run-7")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"metrics": {"psnr": "x"}, "protocol": {}}', '{"metrics": {}, "protocol": {}}']
)
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "eval_results.json").write_text(text)
    with pytest.raises(ValueError, match="holds no results of vistok evaluate"):
        read_results(tmp_path)
    with pytest.raises(ValueError, match="nothing.json cannot be read: No such file"):
        read_results(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ([["runs/vq/"], ["org/fsq"]], [[("vq", "vq")], [("fsq", "fsq")]]),
        ([["a/model"], ["b/model"]], [[("a/model", "a/model")], [("b/model", "b/model")]]),
        ([["x/fsq-seed0", "x/fsq-seed1"]], [[("fsq-seed0", "fsq"), ("fsq-seed1", "fsq")]]),
        ([["x/lfq_10", "x/lfq_12"]], [[("lfq_10", "lfq"), ("lfq_12", "lfq")]]),
        ([["x/1", "x/2"]], [[("1", "1"), ("2", "1")]]),
        (
            [["m/fsq-0", "m/fsq-1"], ["m/fsq"]],
            [[("fsq-0", "fsq-0"), ("fsq-1", "fsq-0")], [("fsq", "fsq")]],
        ),
        (
            [["a/fsq-0", "a/fsq-1"], ["a/fsq-2", "a/fsq-3"]],
            [[("fsq-0", "fsq-0"), ("fsq-1", "fsq-0")], [("fsq-2", "fsq-2"), ("fsq-3", "fsq-2")]],
        ),
        (
            [["x-0-0", "x-0-1"], ["x-0", "x-1"], ["x-2", "x-3"]],
            [
                [(f"x-0-{i}", "x-0-0") for i in "01"],
                [("x-0", "x-0"), ("x-1", "x-0")],
                [("x-2", "x-2"), ("x-3", "x-2")],
            ],
        ),
        (
            [["a/fsq/1", "a/fsq/2"], ["b/vq/1", "b/vq/2"]],
            [[("fsq/1", "fsq"), ("fsq/2", "fsq")], [("vq/1", "vq"), ("vq/2", "vq")]],
        ),
    ],
)
def test_names_tell_models_apart(paths, expected):
    assert named(paths) == expected


def test_a_model_that_is_given_twice_is_said():
    with pytest.raises(ValueError, match="org/vq is given twice"):
        named([["org/vq"], ["org/vq"]])


def test_the_folder_one_is_in_has_a_name(tmp_path, monkeypatch):
    (tmp_path / "vq").mkdir()
    monkeypatch.chdir(tmp_path / "vq")
    assert named([["."], ["../"]]) == [[("vq", "vq")], [(tmp_path.name, tmp_path.name)]]
    with pytest.raises(ValueError, match="^. is given twice"):
        named([["."], ["../vq"]])


def codebook(entries: int) -> dict:
    histogram = [0.25, 0.25, 0, 0, 0.5, 0, 0, 0, 0]
    return {"entries": entries, "usage": 0.75, "perplexity": 3.2, "dead_entries": 2, "histogram": histogram}


def test_a_comparison_is_tables_and_plots():
    results = [result(f"fsq-{i}", 20.0 + i, "fsq") for i in range(2)] + [result("vq", 19.0, resolution=256)]
    for one, count in zip(results, (1, 1, 3), strict=True):
        one["codebooks"] = [codebook(8)] * count
    files = comparison(results)
    assert "fsq (2 seeds)" in files["comparison.md"].decode()
    for name in ("rate_distortion.png", "codebook_use.png"):
        with Image.open(io.BytesIO(files[name])) as picture:
            assert min(picture.size) > 300
            assert picture.convert("L").getextrema() == (0, 255) or picture.convert("L").getextrema()[0] < 100


def test_pictures_without_tokens_have_no_plots():
    one = result("made", 20.0)
    for name in ("bits_per_pixel", "codebook_usage", "tokens_per_picture"):
        del one["metrics"][name]
    assert list(comparison([one])) == ["comparison.md", "comparison.tex", "comparison.csv"]


def test_what_is_infinite_leaves_the_tables():
    assert list(comparison([result("a", math.inf)])) == ["comparison.md", "comparison.tex", "comparison.csv"]


def test_l1_and_mse_are_drawn():
    one = result("a", 20.0)
    one["metrics"] = {"l1": 0.1, "mse": 0.01, "bits_per_pixel": 1.0, "tokens_per_picture": 4}
    assert "rate_distortion.png" in comparison([one])


def written(folder, results: dict):
    folder.mkdir(parents=True)
    (folder / "eval_results.json").write_text(to_json(results))
    return folder


def test_results_of_one_name_are_named_by_their_folders(tmp_path):
    given = [result("vq", 20.0), result("fsq-0", 21.0, "fsq"), result("fsq-1", 22.0, "fsq")]
    one = [written(tmp_path / "one" / each["name"], each) for each in given]
    two = [written(tmp_path / "two" / each["name"], each) for each in given[1:]]
    found = read_all([*one, *two])
    assert [each["name"] for each in found] == ["vq", "one/fsq-0", "one/fsq-1", "two/fsq-0", "two/fsq-1"]
    assert [each["group"] for each in found] == ["vq", "one/fsq", "one/fsq", "two/fsq", "two/fsq"]
    assert "one/fsq (2 seeds)" in comparison(found, plots=False)["comparison.md"].decode()
    alone = [written(tmp_path / name, result("vq", 20.0)) for name in ("a", "b")]
    assert [each["name"] for each in read_all(alone)] == ["a/vq", "b/vq"]
    with pytest.raises(ValueError, match="one/vq is given twice"):
        read_all([one[0], one[0] / "eval_results.json"])


@pytest.mark.parametrize("key", ["dataset", "split", "crop", "rounding", "unreadable_pictures", "device"])
def test_a_key_that_is_missing_is_named_with_its_file(tmp_path, key):
    given = result("a", 20.0)
    del given["protocol"][key]
    folder = written(tmp_path / "a", given)
    with pytest.raises(ValueError, match=rf"a/eval_results.json holds no .*: protocol\.{key} is missing"):
        read_results(folder)


def test_a_codebook_without_a_histogram_is_named(tmp_path):
    given = result("a", 20.0) | {"codebooks": [codebook(8), {"entries": 8, "usage": 1.0, "perplexity": 3.0}]}
    with pytest.raises(ValueError, match=r"codebooks\[1\]\.histogram is missing"):
        read_results(written(tmp_path / "a", given))
