"""What an extraction writes: the right tokens of the right pictures, whatever is read, skipped or resumed."""

import errno
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from token_folders import SIDE, run, tiny, write_pictures

from vistok import FSQConfig, TiTokConfig, VQModelHF
from vistok.data import DatasetError, open_dataset
from vistok.extraction import PlanError, Views, load_tokens
from vistok.extraction.plan import Plan
from vistok.extraction.shards import ShardWriter
from vistok.image_decoding import decode_image

KILLS = Path(__file__).parents[2] / "scripts" / "benchmarks" / "extraction_kills.py"


def rows_of(folder: Path) -> list[dict]:
    """Every row, read by pyarrow alone."""
    files = sorted((folder / "data").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def alone(model: VQModelHF, data: bytes, views: Views) -> np.ndarray:
    """The tokens of one picture by itself, `(V, *token_shape)`."""
    pixels = torch.from_numpy(views(decode_image(data)).copy()).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        return model.encode(pixels / 127.5 - 1).tokens.numpy()


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "README.md"]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_each_row_says_which_picture_it_was(tokens, jpegs, model):
    rows = rows_of(tokens)
    assert len(rows) == len(jpegs)
    starts = [0, 40, 41]
    for row in rows:
        number = starts[row["file"]] + row["row"]
        assert row["key"] == f"{number:03d}.jpg"
        assert row["label"] == number % 10
        assert row["sha256"] == hashlib.sha256(jpegs[number]).digest()
        assert (row["view"], row["status"]) == (0, 0)
        assert row["tokens"] == alone(model, jpegs[number], Views(SIDE)).flatten().tolist()
    assert (
        len({tuple(row["tokens"]) for row in rows}) > 90
    )  # a test of tokens that are all equal proves nothing


def test_the_format(tokens, model):
    [path, *_] = sorted((tokens / "data").glob("*.parquet"))
    file = pq.ParquetFile(path, page_checksum_verification=True)
    schema = file.schema_arrow
    assert schema.field("tokens").type == pa.list_(pa.uint16(), 16)
    assert json.loads(schema.metadata[b"vistok"])["plan_id"] == Plan.read(tokens).id
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    names = sorted(p.name for p in tokens.iterdir())
    assert names == ["README.md", "data", "manifest.json", "plan.json"]
    manifest = json.loads((tokens / "manifest.json").read_text())
    assert (manifest["pictures"], manifest["rows"], manifest["unreadable"]) == (101, 101, {})
    assert manifest["pictures_of_files"] == [40, 1, 60]
    assert [shard["rows"] for shard in manifest["shards"]] == [25, 15, 1, 25, 25, 10]


@pytest.mark.parametrize("kind", ["flip", "ten_crop"])
def test_views_lie_side_by_side(kind, model, source, jpegs, tmp_path):
    views = Views(SIDE, kind, crop_range=1.25)
    run(model, source, tmp_path / "out", views=views)
    rows = rows_of(tmp_path / "out")
    count = len(views.names)
    assert [row["view"] for row in rows] == list(range(count)) * len(jpegs)
    for number in (0, 40, 77):
        found = [row["tokens"] for row in rows[number * count : (number + 1) * count]]
        assert found == alone(model, jpegs[number], views).reshape(count, -1).tolist()


@pytest.mark.parametrize("order", ["place_major", "codebook_major"])
def test_several_codebooks(order, source, jpegs, tmp_path):
    model = tiny(num_codebooks=3)
    run(model, source, tmp_path / "out", token_order=order)
    dataset = load_tokens(tmp_path / "out", model=model)
    tokens = torch.stack([dataset[i]["tokens"] for i in range(5)])
    assert tokens.shape == (5, 48)
    expected = np.concatenate([alone(model, data, Views(SIDE)) for data in jpegs[:5]])
    assert np.array_equal(dataset.to_grid(tokens).numpy(), expected)
    first = expected[0][:, 0, 0] if order == "place_major" else expected[0][0].flatten()[:3]
    assert tokens[0, :3].tolist() == first.tolist()
    assert Plan.read(tmp_path / "out").values["tokens"]["order"] == order


def test_one_dimensional_tokens(source, tmp_path):
    torch.manual_seed(0)
    network = TiTokConfig(
        image_size=SIDE, patch_size=4, num_latent_tokens=6, hidden_size=64, num_layers=1,
        decoder_hidden_size=64, decoder_num_layers=1,
    )  # fmt: skip
    model = VQModelHF(FSQConfig(levels=[8, 5, 5, 5], image_size=SIDE, network=network)).eval()
    run(model, source, tmp_path / "out")
    dataset = load_tokens(tmp_path / "out", model=model)
    assert dataset[3]["tokens"].shape == (6,)
    assert dataset.to_grid(dataset[3]["tokens"][None]).shape == (1, 6)


def test_aspect_buckets_keep_height_and_width(model, tmp_path, jpegs):
    files, sizes = [], [(40, 20), (20, 40), (30, 30), (60, 20)]
    for number in range(30):
        data = io.BytesIO()
        decode_image(jpegs[number]).resize(sizes[number % 4]).save(data, "JPEG")
        files.append(data.getvalue())
    files[7] = b"broken"
    write_pictures(tmp_path / "pictures" / "train.parquet", files)
    source = open_dataset(str(tmp_path / "pictures"), split="train", memory_budget=0)
    views = Views(SIDE, buckets=((16, 16), (8, 24), (24, 8)))
    run(model, source, tmp_path / "out", views=views, on_error="skip")
    rows = rows_of(tmp_path / "out")
    assert (rows[7]["height"], rows[7]["width"], rows[7]["tokens"]) == (None, None, None)
    for number in (0, 1, 2, 3, 28, 29):
        expected = alone(model, files[number], views)[0]
        assert (rows[number]["height"], rows[number]["width"]) == expected.shape
        assert rows[number]["tokens"] == expected.flatten().tolist()
    dataset = load_tokens(tmp_path / "out")
    row = dataset[0]
    grid = dataset.to_grid(row["tokens"][None], row["height"], row["width"])
    assert model.decode(grid).shape == (1, 3, 8, 24)
    assert len(dataset) == 29


def test_columns_are_kept_and_others_are_not(model, pictures, tmp_path):
    source = open_dataset(str(pictures), split="train", keep_columns=["caption"], memory_budget=0)
    run(model, source, tmp_path / "out")
    assert [row["caption"] for row in rows_of(tmp_path / "out")] == [f"picture {n}" for n in range(101)]
    assert load_tokens(tmp_path / "out")[50]["caption"] == "picture 50"
    with pytest.raises(DatasetError, match="has no column 'url'"):
        open_dataset(str(pictures), split="train", keep_columns=["url"])


def test_a_folder_of_pictures(model, tmp_path, jpegs):
    for number, data in enumerate(jpegs[:30]):
        path = tmp_path / "pictures" / "train" / f"class{number % 3}" / f"{number:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    source = open_dataset(str(tmp_path / "pictures"), split="train", memory_budget=0)
    run(model, source, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [row["row"] for row in rows] == list(range(30))
    assert [row["key"] for row in rows] == sorted(f"class{n % 3}/{n:03d}.jpg" for n in range(30))
    assert all(f"class{row['label']}/" in row["key"] for row in rows)
    for row in rows[::7]:
        data = (tmp_path / "pictures" / "train" / row["key"]).read_bytes()
        assert row["sha256"] == hashlib.sha256(data).digest()


def test_each_tar_is_a_shard_and_the_plan_reads_none(model, tmp_path, jpegs, monkeypatch):
    (tmp_path / "tars").mkdir()
    for file, count in enumerate((20, 3, 31)):
        with tarfile.open(tmp_path / "tars" / f"train-{file:03d}.tar", "w") as tar:
            for row in range(count):
                members = (("jpg", jpegs[row + file]), ("cls", b"%d" % row), ("txt", b"row %d" % row))
                for suffix, data in members:
                    member = tarfile.TarInfo(f"s{file}_{row:03d}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    source = open_dataset(str(tmp_path / "tars"), split="train", keep_columns=["txt"], memory_budget=0)
    manifest = run(model, source, tmp_path / "out", batch_size=4, shard_size=10)
    assert manifest["pictures_of_files"] == [20, 3, 31]
    rows = rows_of(tmp_path / "out")
    assert [(row["file"], row["row"]) for row in rows] == [
        (f, r) for f, n in enumerate((20, 3, 31)) for r in range(n)
    ]
    assert all(row["key"] == f"s{row['file']}_{row['row']:03d}" for row in rows)
    assert all(row["txt"] == f"row {row['row']}" and row["label"] == row["row"] for row in rows)
    plan = Plan.read(tmp_path / "out").values["dataset"]["files"]
    assert plan == [{"name": f"train-{n:03d}.tar", "rows": None} for n in range(3)]
    assert len(load_tokens(tmp_path / "out")) == 54


def test_bytes_depend_on_nothing_but_the_plan(tokens, model, source, tmp_path):
    expected = hashes(tokens)
    for options in ({"decode_threads": 3}, {"worker_index": 2, "num_workers": 4}):
        folder = tmp_path / f"out-{len(options)}"
        run(model, source, folder, **options)
        assert hashes(folder) == expected


def test_killed_anywhere_nothing_is_lost_twice_or_different():
    command = [
        sys.executable,
        str(KILLS),
        "--pictures",
        "600",
        "--shard_size",
        "60",
        "--runs",
        "3",
        "--kills",
        "4",
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stdout + result.stderr
    sums = json.loads(result.stdout.splitlines()[-1])
    assert sums["kills"] >= 8
    wrong = ("lost", "twice", "different_files", "left_over", "without_card")
    assert [sums[name] for name in wrong] == [0] * len(wrong)


def test_a_worker_that_slept_and_was_robbed_goes_on(tokens, model, source, tmp_path, monkeypatch):
    commit, robbed = ShardWriter.commit, []

    def robbed_once(self, device):
        if not robbed:  # a worker elsewhere took the shard, began it anew, and died
            robbed.append(self._shard.name)
            (tmp_path / "out" / "leases" / f"{robbed[0]}.1").write_text('{"host": "elsewhere"}')
            [unfinished] = (tmp_path / "out" / "data").glob(f".tmp-{robbed[0]}*")
            unfinished.unlink()
        commit(self, device)

    monkeypatch.setattr(ShardWriter, "commit", robbed_once)
    run(model, source, tmp_path / "out", lease_timeout=0.3, worker_index=1, num_workers=2)
    assert robbed
    assert hashes(tmp_path / "out") == hashes(tokens)
    assert not list((tmp_path / "out" / "data").glob(".tmp-*"))


def test_a_folder_that_is_taken_away_stops_the_extraction(model, source, tmp_path, monkeypatch):
    commit = ShardWriter.commit

    def without_folder(self, device):
        (tmp_path / "out").rename(tmp_path / "elsewhere")
        commit(self, device)

    monkeypatch.setattr(ShardWriter, "commit", without_folder)
    with pytest.raises(FileNotFoundError):
        run(model, source, tmp_path / "out")


def test_a_finished_extraction_mends_what_is_missing_or_was_cut(tokens, model, source, tmp_path):
    run(model, source, tmp_path / "out")
    expected = hashes(tmp_path / "out")
    shards = sorted((tmp_path / "out" / "data").glob("*.parquet"))
    shards[0].unlink()
    shards[1].with_suffix(".json").unlink()
    shards[2].write_bytes(shards[2].read_bytes()[:-10])
    run(model, source, tmp_path / "out")
    assert hashes(tmp_path / "out") == expected
    for manifest in (tmp_path / "out" / "manifest.json", tmp_path / "out" / "nothing"):
        shards[3].write_bytes(shards[3].read_bytes().replace(b"PAR1", b"PAR2"))  # of the same length
        manifest.unlink(missing_ok=True)
        run(model, source, tmp_path / "out")
        assert hashes(tmp_path / "out") == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dtype": "bf16"}, 'numerics.dtype was "float32", now it is "bfloat16"'),
        ({"views": Views(SIDE, crop="center_crop")}, 'crop was "adm_crop", now it is "center_crop"'),
        ({"views": Views(SIDE, crop="center_crop")}, 'was "box halvings, then bicubic", now it is "bicubic"'),
        ({"views": Views(SIDE, "flip")}, r'views was \["center"\], now it is \["center", "center_flipped"\]'),
        ({"views": Views(32)}, "preprocessing.resolution was 16, now it is 32"),
        ({"batch_size": 4}, "numerics.batch_size was 8, now it is 4"),
        ({"shard_size": 26}, "shard_size was 25, now it is 26"),
        ({"token_order": "codebook_major"}, "tokens.order"),
    ],
)  # fmt: skip
def test_another_plan_is_refused_with_both_values(tokens, model, source, options, said):
    before = hashes(tokens)
    with pytest.raises(PlanError, match=said):
        run(model, source, tokens, **options)
    assert hashes(tokens) == before


def test_another_weight_bit_is_refused(tokens, source):
    other = tiny()
    weight = next(other.encoder.parameters()).data
    bits = weight.flatten()[:1].view(torch.int32) ^ 1
    weight[(0,) * weight.ndim] = bits.view(torch.float32)[0]
    was = Plan.read(tokens).values["tokenizer"]["weights_sha256"]
    with pytest.raises(PlanError, match=f'tokenizer.weights_sha256 was "{was}", now it is "[0-9a-f]{{64}}"'):
        run(other, source, tokens)


def test_other_pictures_are_refused(tokens, model, jpegs, tmp_path):
    write_pictures(tmp_path / "pictures" / "train.parquet", jpegs)
    other = open_dataset(str(tmp_path / "pictures"), split="train", memory_budget=0)
    with pytest.raises(PlanError, match=r"dataset.fingerprint was .* now it is"):
        run(model, other, tokens)


def test_bfloat16_says_how_many_tokens_it_changes(model, source, tmp_path, jpegs):
    run(model, source, tmp_path / "out", dtype="bf16")
    share = Plan.read(tmp_path / "out").values["numerics"]["share_differing_from_float32"]
    exact = np.stack([alone(model, data, Views(SIDE)).flatten() for data in jpegs])
    differing = (np.array([row["tokens"] for row in rows_of(tmp_path / "out")]) != exact).mean()
    assert 0 < differing < 0.5
    assert share == pytest.approx(differing)  # fewer than 1,000 pictures: all were compared
    run(model, source, tmp_path / "out", dtype="bf16")  # a resume does not compare again
    assert model.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dtype": "fp16"}, "dtype must be one of fp32, bf16, got 'fp16'"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"shard_size": 0}, "shard_size must be at least 1 picture, got 0"),
        ({"on_error": "ignore"}, "on_error must be error or skip, got 'ignore'"),
        ({"token_order": "random"}, "token_order must be one of"),
        ({"worker_index": 2, "num_workers": 2}, "below num_workers 2, got 2"),
        ({"views": Views(18)}, "nearest that fit"),
        ({"decode_threads": -2}, "decode_threads must be at least 1, got -2"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_written(model, source, tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        run(model, source, tmp_path / "out", **options)
    assert not list(tmp_path.rglob("*"))


def test_a_column_of_our_own_name_is_refused_before_anything_is_written(model, pictures, tmp_path):
    source = open_dataset(str(pictures), split="train", keep_columns=["label"], memory_budget=0)
    with pytest.raises(ValueError, match="keep_columns: 'label' is a column of vistok's own"):
        run(model, source, tmp_path / "out")
    assert not list(tmp_path.rglob("*"))


def test_a_model_in_half_precision_is_refused(source, tmp_path):
    with pytest.raises(ValueError, match="load it with dtype=torch.float32"):
        run(tiny().to(torch.bfloat16), source, tmp_path / "out")


def test_a_full_disk_is_named_with_its_folder_and_room(model, source, tmp_path, monkeypatch):
    def full(self, rows):
        raise OSError(errno.ENOSPC, "Error writing bytes to file")  # as pyarrow says it

    monkeypatch.setattr(ShardWriter, "write", full)
    with pytest.raises(OSError, match=r"No space left on device \(.* MB are free\).*out"):
        run(model, source, tmp_path / "out")
    assert not list((tmp_path / "out" / "data").iterdir())


def test_a_full_disk_leaves_whole_shards_only(model, pictures, tmp_path, tokens):
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), -1)); "
        "from vistok.cli import main; sys.exit(main(sys.argv[2:]))"
    )
    words = ["extract", "--model", model.name_or_path, "--dataset_name", str(pictures), "--shard_size", "25",
             "--batch_size", "8", "--output_dir", str(tmp_path / "out")]  # fmt: skip
    largest = max(path.stat().st_size for path in (tokens / "data").glob("*.parquet"))
    full = subprocess.run(
        [sys.executable, "-c", code, str(largest - 500), *words], capture_output=True, text=True, timeout=100
    )
    assert full.returncode == 1, full.stderr
    assert full.stderr.strip().splitlines()[-1].startswith("vistok extract: ")
    for path in (tmp_path / "out" / "data").glob("*"):
        assert not path.name.startswith(".tmp")
        if path.suffix == ".json":
            assert (
                json.loads(path.read_text())["sha256"]
                == hashlib.sha256(path.with_suffix(".parquet").read_bytes()).hexdigest()
            )
    source = open_dataset(str(pictures), split="train", memory_budget=0)
    run(model, source, tmp_path / "out")
    shards = [name for name in hashes(tokens) if name.endswith(".parquet")]
    assert {name for name in hashes(tmp_path / "out") if name.endswith(".parquet")} == set(shards)
