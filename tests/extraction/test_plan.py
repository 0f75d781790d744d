import json

import pytest
from token_folders import SIDE, tiny

from vistok.data import open_dataset
from vistok.extraction import PlanError, Views
from vistok.extraction.identity import describe_tokenizer
from vistok.extraction.plan import Plan, differences, make_plan, publish_plan, relative_names


@pytest.fixture
def values(source, model):
    views = Views(SIDE)
    tokenizer = describe_tokenizer(model, "tiny", views)
    return make_plan(source, tokenizer, views, {"dtype": "float32"}, shard_size=25, token_order="place_major")


def test_files_have_their_own_shards(values, tmp_path):
    plan = publish_plan(tmp_path / "out", values)
    assert [(s.file, s.start, s.stop) for s in plan.shards] == [
        (0, 0, 25), (0, 25, 40), (1, 0, 1), (2, 0, 25), (2, 25, 50), (2, 50, 60)
    ]  # fmt: skip
    assert [s.name for s in plan.shards][:2] == ["train-00000-of-00006", "train-00001-of-00006"]


def test_a_source_that_does_not_tell_its_files_keeps_all_its_parts(values, source, model):
    source.files, source.shard_lengths = (), None
    views = Views(SIDE)
    tokenizer = describe_tokenizer(model, "tiny", views)
    again = make_plan(source, tokenizer, views, {}, shard_size=25, token_order="place_major")
    assert [file["rows"] for file in again["dataset"]["files"]] == [None, None, None]


def test_the_first_plan_stays(values, tmp_path):
    first = publish_plan(tmp_path, values)
    again = publish_plan(
        tmp_path, json.loads(json.dumps(values)) | {"dataset": values["dataset"] | {"name": "./x"}}
    )
    assert again.id == first.id  # the same pictures by another path


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("tokenizer", "weights_sha256"), "0", 'tokenizer.weights_sha256 was "'),
        (("tokenizer", "revision"), "abc", 'tokenizer.revision was null, now it is "abc"'),
        (("dataset", "revision"), "abc", 'dataset.revision was null, now it is "abc"'),
        (("dataset", "split"), "test", 'dataset.split was "train", now it is "test"'),
        (("preprocessing", "resize_filter"), "bilinear", 'now it is "bilinear"'),
        (("numerics", "dtype"), "bfloat16", 'numerics.dtype was "float32", now it is "bfloat16"'),
        (("numerics", "torch"), "9", 'numerics.torch was not there, now it is "9"'),
        (("tokenizer", "codebook_size"), 1001, "tokenizer.codebook_size was 1000, now it is 1001"),
    ],
)
def test_what_differs_is_named_with_both_values(values, tmp_path, place, value, said):
    publish_plan(tmp_path, values)
    other = json.loads(json.dumps(values))
    other[place[0]][place[1]] = value
    with pytest.raises(PlanError) as refused:
        publish_plan(tmp_path, other)
    assert said in str(refused.value)
    assert "give the same settings, or another output_dir" in str(refused.value)


def test_all_differences_are_listed():
    assert differences({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 2}, "d": 4}) == [
        "a.b was 1, now it is 2", "a.c was 2, now it is not there", "d was 3, now it is 4"
    ]  # fmt: skip


def test_of_long_values_the_difference_is_shown():
    files = [f"train-{number:05d}.parquet" for number in range(100)]
    [said] = differences({"files": files}, {"files": [*files[:70], "other.parquet", *files[71:]]})
    assert '"train-00070.parquet"' in said.partition("now it is")[0]
    assert '"other.parquet"' in said.partition("now it is")[2]
    assert len(said) < 300


def test_a_damaged_or_newer_plan_is_refused(values, tmp_path):
    plan = publish_plan(tmp_path, values)
    for damage in (lambda data: data[:-40], lambda data: data.replace(b'"dataset"', b'"dabaset"')):
        (tmp_path / "plan.json").write_bytes(damage(plan.data))
        with pytest.raises(PlanError, match=r"plan.json is damaged"):
            Plan.read(tmp_path)
    (tmp_path / "plan.json").write_bytes(plan.data.replace(b'"format_version": 1', b'"format_version": 2'))
    with pytest.raises(PlanError, match="is of format vistok-tokens 2, this vistok reads 1"):
        Plan.read(tmp_path)


def test_names_do_not_depend_on_where_the_files_are():
    hub = "hf://datasets/org/name@" + "a" * 40
    assert relative_names((f"{hub}/data/train-0.tar", f"{hub}/data/train-1.tar")) == [
        "train-0.tar",
        "train-1.tar",
    ]
    assert relative_names(("/a/b/c.parquet", "/a/d/e.parquet")) == ["b/c.parquet", "d/e.parquet"]
    assert relative_names(("/a/b/c.parquet",)) == ["c.parquet"]


def test_a_baseline_without_tokens_is_refused():
    from vistok import ContinuousConfig, SimpleCNNConfig, VQModelHF

    network = SimpleCNNConfig(hidden_channels=4, num_res_blocks=1)
    model = VQModelHF(ContinuousConfig(image_size=SIDE, network=network))
    with pytest.raises(ValueError, match="has no codebook, so there are no tokens"):
        describe_tokenizer(model, "baseline", Views(SIDE))


def test_another_setting_is_another_configuration():
    views = Views(SIDE)
    a, b = (describe_tokenizer(tiny(bound=bound), "x", views) for bound in ("tan", "atanh"))
    assert a["weights_sha256"] == b["weights_sha256"]
    assert a["config_sha256"] != b["config_sha256"]
    assert differences(a["config"], b["config"]) == ['bound was "tan", now it is "atanh"']


def test_the_photographs_inside_scikit_image_have_a_plan(model):
    source = open_dataset("samples", split="validation")
    views = Views(SIDE)
    tokenizer = describe_tokenizer(model, "tiny", views)
    plan = make_plan(source, tokenizer, views, {}, shard_size=100, token_order="place_major")
    assert plan["dataset"]["files"] == [{"name": "pictures", "rows": 128}]
