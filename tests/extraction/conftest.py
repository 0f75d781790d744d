"""Small pictures and small tokenizers, extracted once where tests only read."""

import io
from pathlib import Path

import pytest
import torch
from threads import one_thread  # noqa: F401
from token_folders import run, tiny, write_pictures

from vistok import VQModelHF
from vistok.data import open_dataset
from vistok.data.samples import open_samples


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> VQModelHF:
    """The tokenizer, loaded from a folder of its own."""
    folder = tmp_path_factory.mktemp("tokenizer") / "tiny"
    tiny().save_pretrained(folder)
    return VQModelHF.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def jpegs() -> list[bytes]:
    """101 different pictures of 24 x 20 pixels."""
    source = open_samples("train")
    files = []
    for row in range(0, 101 * 20, 20):
        file = io.BytesIO()
        source.read(row).decode().resize((24, 20)).save(file, "JPEG", quality=85)
        files.append(file.getvalue())
    return files


@pytest.fixture(scope="session")
def pictures(tmp_path_factory, jpegs) -> Path:
    """The 101 pictures in three files of 40, 1 and 60."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, (start, end) in enumerate([(0, 40), (40, 41), (41, 101)]):
        write_pictures(folder / f"train-{number:05d}-of-00003.parquet", jpegs[start:end], start)
    return folder


@pytest.fixture
def source(pictures):
    """The pictures, streamed."""
    return open_dataset(str(pictures), split="train", memory_budget=0)


@pytest.fixture(scope="session")
def tokens(tmp_path_factory, model, pictures) -> Path:
    """The tokens of the pictures in 5 shards; tests that change them make a copy."""
    folder = tmp_path_factory.mktemp("tokens") / "pictures"
    run(model, open_dataset(str(pictures), split="train", memory_budget=0), folder)
    return folder
