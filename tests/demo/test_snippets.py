import numpy as np
import pytest
from PIL import Image

from vistok.demo.reconstruction import reconstruct
from vistok.demo.snippets import python_lines


@pytest.mark.parametrize("name", ["grid", "residual", "sequence"])
def test_the_lines_do_what_the_page_did(tokenizers, folders, photograph, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photograph.save("photo.png")
    (tmp_path / name).symlink_to(folders[name])
    result = reconstruct(tokenizers[name], photograph)
    lines = python_lines(tokenizers[name], result)
    exec(lines.replace("photo.jpg", "photo.png"), {})
    assert np.array_equal(np.load("tokens.npy"), result.tokens)
    picture = np.asarray(Image.open("reconstruction.png"), int)
    assert np.abs(picture - np.asarray(result.picture, int)).max() <= 1
    assert max(map(len, lines.splitlines())) < 110


def test_a_tokenizer_without_tokens_has_lines_too(tokenizers, photograph):
    lines = python_lines(tokenizers["continuous"], reconstruct(tokenizers["continuous"], photograph, 32))
    assert "tokens" not in lines
    compile(lines, "lines", "exec")
