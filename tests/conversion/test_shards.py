"""Several safetensors files under one index: all of their tensors, or one line."""

import json

import pytest
import torch
from safetensors.torch import save_file

from vistok.conversion.reading import read

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "1.safetensors")
    save_file({"b": torch.zeros(2), "c": torch.zeros(3)}, tmp_path / "2.safetensors")
    write(tmp_path, {"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"})
    return tmp_path


def write(folder, weight_map):
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def test_all_tensors_come_back(folder):
    source = read(folder / INDEX)
    assert {name: weight.numel() for name, weight in source.groups[""].items()} == {"a": 1, "b": 2, "c": 3}
    assert source.name == str(folder / INDEX)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no index of safetensors files"),
        ("[]", "is no index of safetensors files"),
        ("{}", "is no index of safetensors files"),
        ("[" * 10**5, "is no index of safetensors files"),
        (" " * 9 * 2**20, "is no index of safetensors files"),
        ('{"weight_map": ["a"]}', "is no index of safetensors files"),
        ('{"weight_map": {"a": ["1.safetensors"]}}', "is no index of safetensors files"),
        ('{"weight_map": {}}', "names no files"),
        ('{"weight_map": {"a": 1}}', "names 1, which is no safetensors file beside it"),
        ('{"weight_map": {"a": "1.pt"}}', "names '1.pt', which is no safetensors file beside it"),
        (
            '{"weight_map": {"a": "../1.safetensors"}}',
            "names '../1.safetensors', which is no safetensors file",
        ),
        (
            '{"weight_map": {"a": "3.safetensors"}}',
            "names 3.safetensors, which is not there: download it too",
        ),
        ('{"weight_map": {"a": "1.safetensors", "d": "1.safetensors"}}', "only the index has 'd'"),
        ('{"weight_map": {"b": "2.safetensors"}}', "does not fit 2.safetensors: only the file has 'c'"),
    ],
    ids=lambda text: text[:40],
)
def test_an_index_that_does_not_fit_is_one_line(folder, text, said):
    (folder / INDEX).write_text(text)
    with pytest.raises(ValueError, match=said) as refused:
        read(folder / INDEX)
    assert str(refused.value).startswith(f"{folder / INDEX} ")
    assert len(str(refused.value).splitlines()) == 1
