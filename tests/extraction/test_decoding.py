import io

import numpy as np
import pytest
import torch
from PIL import Image
from token_folders import SIDE, run, tiny, write_pictures

from vistok import VistokImageProcessor
from vistok.data import open_dataset
from vistok.extraction import PlanError, Views, decode_tokens, load_tokens
from vistok.image_decoding import decode_image


def read(file) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture)


def equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Up to the rounding of a last bit, which may be another in a batch of another size."""
    difference = np.abs(a.astype(int) - b)
    return a.shape == b.shape and difference.max() <= 1 and difference.mean() < 1e-3


def expected(tokens, model, count: int) -> np.ndarray:
    dataset = load_tokens(tokens)
    grid = dataset.to_grid(torch.stack([dataset[i]["tokens"] for i in range(count)]))
    with torch.no_grad():
        return np.stack(VistokImageProcessor().postprocess(model.decode(grid), output_type="np"))


def test_png(tokens, model, tmp_path):
    done = decode_tokens(tokens, model, tmp_path / "out", batch_size=30)
    assert done == {"path": str(tmp_path / "out"), "pictures": 101}
    files = sorted((tmp_path / "out").iterdir())
    assert [files[0].name, files[-1].name] == ["00000000.png", "00000100.png"]
    assert equal(np.stack([read(file) for file in files]), expected(tokens, model, 101))


def test_npz_as_evaluators_read_it(tokens, model, tmp_path):
    decode_tokens(tokens, model, tmp_path / "samples.npz", format="npz", limit=33, batch_size=10)
    with np.load(tmp_path / "samples.npz") as file:
        assert file.files == ["arr_0"]
        assert file["arr_0"].dtype == np.uint8
        assert equal(file["arr_0"], expected(tokens, model, 33))


def test_several_codebooks(source, tmp_path):
    model = tiny(num_codebooks=2)
    run(model, source, tmp_path / "tokens", token_order="codebook_major")
    decode_tokens(tmp_path / "tokens", model, tmp_path / "out", limit=3)
    assert equal(read(tmp_path / "out" / "00000000.png"), expected(tmp_path / "tokens", model, 1)[0])


def test_pictures_of_several_shapes(model, jpegs, tmp_path):
    files = []
    for number, size in enumerate([(40, 20), (20, 40), (40, 20), (30, 30)]):
        data = io.BytesIO()
        decode_image(jpegs[number]).resize(size).save(data, "JPEG")
        files.append(data.getvalue())
    write_pictures(tmp_path / "pictures" / "train.parquet", files)
    source = open_dataset(str(tmp_path / "pictures"), split="train", memory_budget=0)
    run(model, source, tmp_path / "tokens", views=Views(SIDE, buckets=((16, 16), (8, 16), (16, 8))))
    decode_tokens(tmp_path / "tokens", model, tmp_path / "out")
    shapes = [read(file).shape[:2] for file in sorted((tmp_path / "out").iterdir())]
    assert shapes == [(8, 16), (16, 8), (8, 16), (16, 16)]
    with pytest.raises(ValueError, match="several shapes"):
        decode_tokens(tmp_path / "tokens", model, tmp_path / "out.npz", format="npz")


def test_what_is_wrong_leaves_nothing(tokens, model, tmp_path):
    with pytest.raises(PlanError, match="config_sha256|weights_sha256"):
        decode_tokens(tokens, tiny(levels=[8, 5, 5, 4]), tmp_path / "out")
    with pytest.raises(ValueError, match="format must be one of png, npz"):
        decode_tokens(tokens, model, tmp_path / "out", format="gif")
    for wrong in ({"limit": -1}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            decode_tokens(tokens, model, tmp_path / "out", **wrong)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there.npz").touch()
    with pytest.raises(ValueError, match="is there already"):
        decode_tokens(tokens, model, tmp_path / "there.npz", format="npz")
