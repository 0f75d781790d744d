import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from token_folders import run, tiny, write_pictures

from vistok.data import open_dataset
from vistok.extraction import verify
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
    in_pieces = Payload()
    for start in range(0, len(table), 7):
        in_pieces.update(table.slice(start, 7))
    assert in_pieces.hexdigest() == expected
    other = Payload()
    other.update(table.set_column(4, "label", pa.array([1] * len(table))))
    assert other.hexdigest() != expected


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
