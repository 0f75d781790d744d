"""Checkpoints are read whole or refused with one line; nothing that they hold runs, or takes the machine."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import zipfile
from argparse import Namespace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.conversion.hostile import Call, write_all
from vistok.conversion import read, reading
from vistok.conversion.checkpoint_sandbox.content import sort_out, write
from vistok.conversion.checkpoint_sandbox.opening import RefusedError, load

ROOT = Path(__file__).parents[2]
KINDS = {
    "whole": torch.randn(3, 4),
    "odd": torch.arange(3, dtype=torch.int8),
    "half": torch.randn(5).bfloat16(),
    "flag": torch.tensor([True, False]),
    "scalar": torch.tensor(3, dtype=torch.int64),
    "empty": torch.zeros(0, 4),
    "transposed": torch.randn(3, 4).t(),
    "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "expanded": torch.ones(1).expand(4, 5),
    "part": torch.arange(10.0)[2:7],
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "conjugate": torch.tensor([1 + 2j]).conj(),
    "nan": torch.tensor([float("nan"), 1.0]),
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """What `read` says to every hostile file, in a process whose peak memory is measured, and the folder."""
    folder = tmp_path_factory.mktemp("hostile")
    expected = write_all(folder, folder / "canary")
    code = """
import json, resource, sys
from concurrent.futures import ThreadPoolExecutor
from vistok.conversion import read
def outcome(path):
    try:
        return f"read {sorted(read(path).groups)}"
    except ValueError as error:
        return str(error)
with ThreadPoolExecutor(2) as pool:
    said = list(pool.map(outcome, sys.argv[1:]))
peaks = [resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]
with open("/proc/self/status") as status:  # ru_maxrss of oneself remembers the process that started this one
    peaks += [int(line.split()[1]) for line in status if line.startswith("VmHWM")]
print(json.dumps([said, peaks]))
"""
    paths = [str(folder / name) for name in expected]
    result = subprocess.run(
        [sys.executable, "-c", code, *paths],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    said, peaks = json.loads(result.stdout)
    return dict(zip(expected, said, strict=True)), expected, peaks, folder


def test_a_hostile_file_is_refused_with_one_line_that_names_what_is_wrong(hostile):
    said, expected, _, folder = hostile
    for name, line in said.items():
        assert line.startswith(f"{folder / name} "), name
        assert expected[name] in line
        assert len(line.splitlines()) == 1
        assert line.isprintable()


def test_no_code_of_a_hostile_file_runs(hostile):
    assert not (hostile[3] / "canary").exists()


def test_hostile_files_take_less_than_1_gb(hostile):
    assert (
        max(hostile[2]) * 1024 < 1e9
    )  # kilobytes on Linux; of this process and of those that opened the files


def test_the_attacks_are_attacks(tmp_path):
    torch.save(Call(os.mkdir, str(tmp_path / "canary")), tmp_path / "attack.pt")
    torch.load(tmp_path / "attack.pt", weights_only=False)
    assert (tmp_path / "canary").is_dir()


def test_all_kinds_of_tensors_come_back_and_nothing_stays_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(reading.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    torch.save(
        {"model": KINDS, "ema": {"odd": KINDS["odd"]}, "optimizer": {"state": {0: {}}}}, tmp_path / "x.pt"
    )
    source = read(tmp_path / "x.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]
    assert source.groups.keys() == {"model", "ema"}
    assert source.groups["model"].keys() == KINDS.keys()
    for name, tensor in KINDS.items():
        got = source.groups["model"][name]
        assert got.dtype == tensor.dtype
        assert torch.equal(
            torch.view_as_real(got) if got.is_complex() else got.nan_to_num(7),
            (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor.nan_to_num(7)),
        )
    assert source.others == ("optimizer",)
    source.groups["model"]["whole"].zero_()  # the caller's own


def test_the_format_before_torch_1_6_and_compressed_archives_are_read(tmp_path):
    weights = {"model": {"weight": torch.arange(4.0)}}
    torch.save(weights, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(weights, tmp_path / "stored.pt")
    with (
        zipfile.ZipFile(tmp_path / "stored.pt") as stored,
        zipfile.ZipFile(tmp_path / "deflated.pt", "w", zipfile.ZIP_DEFLATED) as deflated,
    ):
        for entry in stored.namelist():
            deflated.writestr(entry, stored.read(entry))
    for name in ("legacy.pth", "deflated.pt"):
        assert torch.equal(read(tmp_path / name).groups["model"]["weight"], torch.arange(4.0))


def test_harmless_classes_are_allowed_by_name_and_not_imported():
    """The file was pickled by omegaconf 2.4, with a callback and hyperparameters named as old Lightning's."""
    path = Path(__file__).parent / "golden" / "harmless_company.ckpt"
    foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    assert {name.split(".")[0] for name in foreign} >= {"omegaconf", "pytorch_lightning", "numpy", "argparse"}
    source = read(path)
    assert torch.equal(source.groups["state_dict"]["weight"], torch.ones(2))
    assert source.others == (
        "hyper_parameters", "hparams_type", "hparams", "callbacks", "best", "curve", "groups", "args"
    )  # fmt: skip
    assert source.settings == {"image_size": 64, "levels": [8, 5], "device": None}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"model": {"weight": torch.ones(1)}, "ratio": Fraction(1, 2)}, "fractions.Fraction"),
        ({"args": Namespace(folder=Path("x")), "model": {"weight": torch.ones(1)}}, "pathlib"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    ],
)
def test_an_unknown_class_is_refused_by_name(tmp_path, content, named):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(RefusedError, match=rf"^asks for .*{named}.*refused"):
        load(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model": {"w": torch.eye(3).to_sparse()}}, '"model", "w".*no plain tensor'),
        ({"model": {"w": torch.empty(10**12, device="meta")}}, '"model", "w".*no plain tensor .*meta'),
        ({"model": {"w": torch.ones(2, dtype=torch.complex128)}}, "complex128"),
        ({"model": {"w": torch.ones(10).expand(2 * 10**6, 10)}}, "80,000,000 bytes"),
        ([torch.ones(1)], "one list, not a dictionary"),
        ({"epoch": 3, "model": {}}, "no tensors to convert, only epoch, model"),
    ],
)  # fmt: skip
def test_what_is_no_plain_dictionary_of_tensors_is_refused(tmp_path, content, said):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(RefusedError, match=said):
        write(*sort_out(load(tmp_path / "x.pt")), io.BytesIO(), 64 * 2**20)


def test_names_that_would_play_with_a_terminal_are_refused(tmp_path):
    save_file({"weight\n\x1b[31m": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"unprintable characters: 'weight\\n\\x1b"):
        read(tmp_path / "x.safetensors")


def test_programs_are_refused_as_what_they_are(tmp_path):
    for entry, said in (
        ("x/constants.pkl", "TorchScript"),
        ("x/archive_format", "exported program"),
        ("a.npy", "none of torch.save"),
    ):
        with zipfile.ZipFile(tmp_path / "x.pt", "w") as file:
            file.writestr(entry, b"")
        with pytest.raises(RefusedError, match=said):
            load(tmp_path / "x.pt")


def safetensors(header: dict | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(**fields) -> dict:
    return {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **fields}}


@pytest.mark.parametrize(
    "data",
    [
        safetensors({}, length=2**63),
        safetensors(one(), bytes(4), length=10_000),
        safetensors(one(), bytes(4))[:-1],
        safetensors(b'{"a": oops'),
        safetensors(b"[1, 2]  "),
        safetensors(one(dtype="F99"), bytes(4)),
        safetensors(one(shape=[10**12]), bytes(4)),
        safetensors(one(shape=[2**40, 2**40]), bytes(4)),
        safetensors(one(shape=[-1]), bytes(4)),
        safetensors(one(data_offsets=[4, 8]), bytes(8)),
        safetensors({**one(), "b": one()["a"]}, bytes(4)),
        safetensors(b'{"a":' + b"[" * 5000),
        safetensors(b" " * (9 * 2**20)),
        b"abc",
        bytes(8),
    ],
)
def test_a_wrong_safetensors_header_is_one_line(tmp_path, data):
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match=f"^{tmp_path}/x.safetensors is no safetensors file") as refused:
        read(tmp_path / "x.safetensors")
    assert len(str(refused.value).splitlines()) == 1


def test_safetensors_are_known_by_their_content(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "x.bin")
    source = read(tmp_path / "x.bin")
    assert torch.equal(source.groups[""]["weight"], torch.ones(2))
    assert (source.name, source.others, source.settings) == (str(tmp_path / "x.bin"), (), {})


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("x.pt", b"", "is empty"),
        ("x.ckpt", b"\n<!DOCTYPE html><html>", "page of HTML"),
        ("x.safetensors", b"<html>404</html>", "page of HTML"),
        ("x.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("x.pt", b'{"error": "Repository not found"}', "JSON"),
        ("x.pt", bytes(range(100)), "neither a safetensors file nor one of torch.save"),
        ("x.pt", b"cos\nsystem\n(S'true'\ntR.", "neither a safetensors file nor one of torch.save"),
    ],
)
def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path, name, data, said):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"^{tmp_path / name} .*{said}"):
        read(tmp_path / name)


def test_what_is_no_file_is_said_to_be_none(tmp_path):
    with pytest.raises(ValueError, match="is not a file"):
        read(tmp_path)
    with pytest.raises(ValueError, match="is not there"):
        read(tmp_path / "x.pt")


def test_the_process_that_opens_a_pickle_gets_no_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    given = {}
    run = subprocess.run
    monkeypatch.setattr(
        reading.subprocess, "run", lambda *args, **kwargs: given.update(kwargs) or run(*args, **kwargs)
    )
    torch.save({"weight": torch.ones(1)}, tmp_path / "x.pt")
    read(tmp_path / "x.pt")
    assert given["env"].keys() <= {
        *reading._ENVIRONMENT, "PYTHONPATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MALLOC_ARENA_MAX",
    }  # fmt: skip


def test_a_process_that_takes_too_long_or_dies_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(reading.tempfile, "tempdir", str(tmp_path))
    torch.save({"weight": torch.ones(1)}, tmp_path / "x.pt")
    (tmp_path / "python").write_text(f"#!/bin/sh\nkill -{signal.SIGSEGV.value} $$\n")
    (tmp_path / "python").chmod(0o755)
    with monkeypatch.context() as patched, pytest.raises(ValueError, match="was ended by signal 11"):
        patched.setattr(reading.sys, "executable", str(tmp_path / "python"))
        read(tmp_path / "x.pt")
    monkeypatch.setattr(reading, "TIME_LIMIT", 0)
    with pytest.raises(ValueError, match="took longer than 0 seconds"):
        read(tmp_path / "x.pt")
    assert {path.name for path in tmp_path.iterdir()} == {"x.pt", "python"}


def test_a_full_disk_is_one_line(tmp_path):
    """/dev/full stands for it: every write to it finds no space."""
    torch.save({"weight": torch.ones(1)}, tmp_path / "x.pt")
    command = [sys.executable, "-m", "checkpoint_sandbox", str(tmp_path / "x.pt"), "/dev/full"]
    result = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT / "vistok" / "conversion")},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "needs room" in result.stdout


def test_whatever_breaks_out_of_the_unpickler_cannot_do_much(tmp_path):
    """The deeds that a payload of CVE-2025-32434 or its like would try, in a process that is confined."""
    deeds = {
        "system": "os.system('touch canary')",
        "program": "subprocess.run(['touch', 'canary'])",
        "spawn": "os.posix_spawn('/bin/touch', ['touch', 'canary'], {})",
        "exec": "os.execv('/bin/touch', ['touch', 'canary'])",
        "fork": "os.fork()",
        "write": "open('canary', 'w')",
        "append": "os.open('keep', os.O_APPEND | os.O_WRONLY)",
        "remove": "os.remove('keep')",
        "rename": "os.rename('keep', 'canary')",
        "network": "socket.create_connection(('127.0.0.1', 9))",
        "library": "ctypes.CDLL(None)",
        "memory": "torch.ones(2**29)",
    }
    code = f"""
import ctypes, json, os, socket, subprocess, torch
from checkpoint_sandbox.__main__ import confine
confine(0)
outcomes = {{}}
for name, deed in {deeds!r}.items():
    try:
        eval(deed)
        outcomes[name] = "done"
    except Exception as error:
        outcomes[name] = f"{{type(error).__name__}}: {{error}}"
print(json.dumps(outcomes))
"""
    (tmp_path / "keep").write_text("kept")
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "vistok" / "conversion")},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    outcomes = json.loads(result.stdout)
    assert outcomes.keys() == deeds.keys()
    assert "allocate" in outcomes.pop("memory")
    assert all(outcome.startswith("RefusedError: tried to do") for outcome in outcomes.values()), outcomes
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]
