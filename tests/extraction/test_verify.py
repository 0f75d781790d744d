import datetime
import importlib.util
import io
import json
import shutil
import sys
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from kept_columns import extract_with, rewrite
from token_folders import SIDE, run, tiny, write_pictures

from vistok.data import open_dataset
from vistok.extraction import PlanError, Views, export, load_tokens, verify
from vistok.extraction.card import push_tokens
from vistok.extraction.payload import Payload
from vistok.extraction.plan import Plan
from vistok.extraction.shard_reading import is_done, read_record, read_table
from vistok.extraction.shards import STATUSES
from vistok.image_decoding import UnreadableImageError

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmarks" / "extraction_damage.py"


@pytest.fixture
def copied(tokens, tmp_path) -> Path:
    return Path(shutil.copytree(tokens, tmp_path / "copy"))


def test_what_is_whole_has_no_problems(tokens, model, source):
    found = verify(tokens, model=model, source=source, samples=40)
    assert found.problems == []
    assert (found.shards, found.pictures, found.tokens) == (6, 101, 101 * 16)
    assert 400 <= found.encoded_again <= 800
    assert found.differing == 0


def test_flipped_bits_and_lost_shards_are_found(monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("extraction_damage", SCRIPT)
    damage = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(damage)
    monkeypatch.setattr(sys, "argv", ["extraction_damage.py", "--flips", "60"])
    threads = torch.get_num_threads()
    try:
        assert damage.main() == 0, capsys.readouterr().out
    finally:
        torch.set_num_threads(threads)
    counts = json.loads(capsys.readouterr().out)
    assert counts[".parquet flipped"] > 10


def test_tokens_that_were_written_wrong_are_found(tokens, model, source, tmp_path, monkeypatch):
    from vistok.extraction.encoding import TokenEncoder

    right = TokenEncoder.__call__
    monkeypatch.setattr(TokenEncoder, "__call__", lambda self, pixels: right(self, pixels) ^ 1)
    run(model, source, tmp_path / "out")
    monkeypatch.undo()
    assert verify(tmp_path / "out").problems == []  # the bytes are as they were written
    [problem] = verify(tmp_path / "out", model=model, source=source).problems
    assert "tokens differ when they are made again" in problem


def test_another_tokenizer_is_a_problem(tokens, source):
    [problem] = verify(tokens, model=tiny(levels=[8, 5, 5, 4]), source=source).problems
    assert "config_sha256" in problem or "weights_sha256" in problem


def test_other_pictures_are_a_problem(tokens, model, jpegs, tmp_path):
    write_pictures(tmp_path / "pictures" / "train.parquet", jpegs)
    other = open_dataset(str(tmp_path / "pictures"), split="train", memory_budget=0)
    [problem] = verify(tokens, model=model, source=other).problems
    assert "fingerprint" in problem


def test_a_picture_that_changed_under_its_name_is_found(model, jpegs, tmp_path):
    path = tmp_path / "pictures" / "train.parquet"
    write_pictures(path, jpegs[:20])
    run(model, open_dataset(str(path.parent), split="train", memory_budget=0), tmp_path / "out")
    table = pq.read_table(path).to_pydict()
    first, second = (table["image"][i]["bytes"] for i in (3, 9))
    table["image"][3]["bytes"], table["image"][9]["bytes"] = second, first  # files of the same size
    again = pa.table(table, pq.read_schema(path))
    pq.write_table(again, path)
    source = open_dataset(str(path.parent), split="train", memory_budget=0)
    if source.fingerprint != Plan.read(tmp_path / "out").values["dataset"]["fingerprint"]:
        source.fingerprint = Plan.read(tmp_path / "out").values["dataset"]["fingerprint"]
    problems = verify(tmp_path / "out", model=model, source=source, samples=20).problems
    assert [p.split(" is ")[0] for p in problems] == ["row 3 of train.parquet", "row 9 of train.parquet"]


def test_a_stray_file_is_a_problem(copied):
    (copied / "data" / "train-00007-of-00006.parquet").write_bytes(b"")
    [problem] = verify(copied).problems
    assert "is in no plan" in problem


def test_the_hash_of_the_payload_outlives_a_rewrite(tokens):
    plan = Plan.read(tokens)
    table = read_table(tokens, plan, plan.shards[0])
    expected = read_record(tokens, plan, plan.shards[0])["payload_sha256"]
    assert payload(table, pieces=7) == expected
    assert payload(table.set_column(4, "label", pa.array([1] * len(table)))) != expected


def payload(table: pa.Table, pieces: int = 1000) -> str:
    digest = Payload(table.column_names)
    for start in range(0, len(table), pieces):
        digest.update(table.slice(start, pieces))
    return digest.hexdigest()


COLUMNS = {
    "integers": pa.array([2**60 + 1, None, 2**60, 0], pa.int64()),
    "unsigned": pa.array([2**64 - 1, None, 1, 0], pa.uint64()),
    "floats": pa.array([0.1, None, float("inf"), -0.0]),
    "truths": pa.array([True, None, False, True]),
    "texts": pa.array(["a", None, "", "b\0c"]),
    "large": pa.array(["a", None, "", "b"], pa.large_string()),
    "bytes": pa.array([b"a", None, b"", b"\xff"]),
    "moments": pa.array(
        [datetime.datetime(2026, 11, day, 1) for day in (1, 2, 3)] + [None], pa.timestamp("s")
    ),
    "prices": pa.array([Decimal("1.50"), None, Decimal("2.25"), Decimal("0.00")]),
    "lists": pa.array([["a", None], None, [], ["b", "c"]]),
    "vectors": pa.array([[1.0, 2.0], None, [3.0, None], [5.0, 6.0]], pa.list_(pa.float32(), 2)),
    "nested": pa.array([[[1], [2, None]], None, [], [[]]]),
    "structures": pa.array([{"x": 1, "y": "a"}, None, {"x": None, "y": "b"}, {"x": 3, "y": None}]),
    "classes": pa.array(["a", None, "b", "a"]).dictionary_encode(),
    "nothing": pa.nulls(4),
    "extended": pa.ExtensionArray.from_storage(
        pa.opaque(pa.list_(pa.int32()), "matrix", "tests"),
        pa.array([[1], None, [], [2, 3]], pa.list_(pa.int32())),
    ),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_the_hash_of_the_payload_knows_every_kind_of_column(name):
    column = COLUMNS[name]
    table = pa.table({name: column})
    expected = payload(table)
    assert payload(table, 1) == payload(table, 3) == expected
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=3)
    assert payload(pq.read_table(file)) == expected
    if name != "nothing":
        for other in ([1, 0, 2, 3], [0, 1, 3, 2], [0, 1, 1, 3]):  # among them other places of the null
            assert payload(table.take(other)) != expected
    assert payload(table.slice(1)) != expected
    assert payload(table.rename_columns(["other"])) != expected


def test_the_hash_of_the_payload_tells_where_a_value_ends():
    for one, other in (
        (["a\0b", "c"], ["a", "b\0c"]),
        (["", "a"], [None, "a"]),
        ([["a"], []], [[], ["a"]]),
        ([[1, 2], [3]], [[1], [2, 3]]),
        ([[0, None]], [[None, 0]]),
    ):
        assert payload(pa.table({"x": one})) != payload(pa.table({"x": other}))


def test_a_caption_that_was_changed_knowingly_is_found(model, jpegs, tmp_path):
    folder = extract_with(
        model, jpegs[:20], tmp_path, {"caption": pa.array([f"picture {i}" for i in range(20)])}
    )
    plan = Plan.read(folder)
    table = read_table(folder, plan, plan.shards[1])
    rewrite(folder, 1, table)
    assert verify(folder).problems == []
    place = table.column_names.index("caption")
    captions = ["another", *table["caption"].to_pylist()[1:]]
    rewrite(folder, 1, table.set_column(place, "caption", pa.array(captions)))
    [problem] = verify(folder).problems
    assert problem.endswith("its values are not as recorded")
    rewrite(folder, 1, table.drop_columns("caption"))
    [problem] = verify(folder).problems
    assert problem.endswith("its values are not as recorded")


def test_a_height_that_was_changed_knowingly_is_found(model, source, tmp_path):
    run(model, source, tmp_path / "out", views=Views(SIDE, buckets=((16, 16), (8, 16))))
    plan = Plan.read(tmp_path / "out")
    table = read_table(tmp_path / "out", plan, plan.shards[0])
    place, heights = table.column_names.index("height"), table["height"].to_pylist()
    heights[3] += 1
    changed = pa.array(heights, table.schema.field(place).type)
    rewrite(tmp_path / "out", 0, table.set_column(place, "height", changed))
    [problem] = verify(tmp_path / "out").problems
    assert problem.endswith("its values are not as recorded")


def test_a_plan_that_was_changed_is_said_once(copied, hub):
    path = copied / "plan.json"
    whole = path.read_bytes()
    for before, after in ((b"adm_crop", b"adm_crip"), (b'"split": "train"', b'"split": "trein"')):
        path.write_bytes(whole.replace(before, after, 1))
        assert path.read_bytes() != whole
        for use in (
            verify,
            load_tokens,
            lambda tokens: export("jsonl", tokens, copied / "out"),
            lambda tokens: push_tokens(tokens, "org/changed-plan"),
        ):
            with pytest.raises(PlanError, match="plan.json is not the plan that its shards were") as refused:
                use(copied)
            assert "delete" not in str(refused.value)
    path.write_bytes(whole)
    assert verify(copied).problems == []


def test_a_record_of_another_plan_is_no_other_plan(copied):
    path = sorted((copied / "data").glob("*.json"))[2]
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps({**record, "plan_id": "0" * 64}, indent=1) + "\n")
    [problem] = verify(copied).problems
    assert "train-00002-of-00006.json belongs to another plan" in problem


def test_every_reason_has_a_status():
    reasons = [UnreadableImageError("", reason).reason for reason in STATUSES[2:]]
    text = Path(sys.modules[UnreadableImageError.__module__].__file__).read_text()
    assert all(f'"{reason}"' in text or reason.startswith("mode_") for reason in reasons)
    listed = UnreadableImageError.__doc__.split("reason: one short word for counting: ")[1].split(".\n")[0]
    words = {word.strip(' "\n') for word in listed.replace(" or ", ",").split(",")}
    assert words == set(STATUSES[2:])


def test_a_shard_without_its_record_is_not_there(copied):
    plan = Plan.read(copied)
    assert is_done(copied, plan, plan.shards[2])
    (copied / "data" / f"{plan.shards[2].name}.json").unlink()
    assert not is_done(copied, plan, plan.shards[2])
