import pytest
from PIL import Image

from vistok.demo.reconstruction import reconstruct
from vistok.demo.tokenizers import default_tokenizer_folder, load_tokenizers

ANY_SHAPE = {"grid", "large", "bits", "table", "residual", "transport", "continuous"}


def test_networks_that_take_any_shape_are_found(tokenizers):
    assert {name for name, tokenizer in tokenizers.items() if tokenizer.any_shape} == ANY_SHAPE
    assert tokenizers["grid"].sizes == (32, 128, 256, 384, 512)
    assert (tokenizers["sequence"].sizes, tokenizers["scales"].sizes) == ((40,), (32,))
    assert tokenizers["grid"].usual_size == 256


@pytest.mark.parametrize(
    ("picture", "shown"),
    [((451, 300), (192, 128)), ((300, 451), (128, 192)), ((900, 150), (256, 43)), ((64, 64), (128, 128))],
)
def test_a_picture_is_shown_whole(tokenizers, picture, shown):
    result = reconstruct(tokenizers["grid"], Image.new("RGB", picture, "teal"), 128)
    assert result.original.size == result.picture.size == shown
    height, width = result.tokens.shape
    assert (width * 4, height * 4) == tuple(-(-side // 4) * 4 for side in shown)


@pytest.mark.parametrize("name", ["sequence", "scales"])
def test_a_network_with_learned_positions_gets_the_centre_square(tokenizers, name):
    picture = Image.new("RGB", (96, 32), "red")
    picture.paste("blue", (32, 0, 64, 32))
    result = reconstruct(tokenizers[name], picture)
    assert result.original.size == (tokenizers[name].usual_size,) * 2
    assert result.original.getpixel((16, 16)) == (0, 0, 255)


def test_another_size_is_refused(tokenizers, photograph):
    with pytest.raises(ValueError, match="takes pictures of 40 pixels, got 64"):
        reconstruct(tokenizers["sequence"], photograph, 64)


def test_other_assignments_are_found(tokenizers):
    offering = {name: one.other_assignments for name, one in tokenizers.items() if one.other_assignments}
    assert offering == {"transport": ("optimal transport",)}


def test_a_page_says_a_folders_name_and_not_where_it_is(folders):
    loaded = load_tokenizers([folders["grid"], folders["residual"]], device="cpu")
    assert list(loaded) == ["grid", "residual"]


def test_two_of_one_name_are_refused(folders):
    with pytest.raises(ValueError, match="called 'grid'"):
        load_tokenizers([folders["grid"], folders["grid"] + "/"], device="cpu")


def test_the_default_is_made_where_it_is_missing(models, tmp_path, monkeypatch, caplog):
    made = []

    def quickstart(folder):
        models["grid"].save_pretrained(folder)
        made.append(folder)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vistok.training.quickstart.quickstart", quickstart)
    assert default_tokenizer_folder() == default_tokenizer_folder() == "outputs/quickstart"
    assert made == ["outputs/quickstart"]
    assert "training a small one" in caplog.text
