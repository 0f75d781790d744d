"""Pictures of anybody's tokenizer in folders: paired by name, of one size, none shifted."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from vistok.data import DatasetError
from vistok.evaluation import Measures, psnr
from vistok.evaluation.folders import evaluate_folders, open_folders


@pytest.fixture
def folders(tmp_path):
    """Five pictures of 40 x 30 pixels, and 24 x 24 reconstructions of their centres with known errors."""
    photograph = Image.fromarray(data.astronaut())
    (tmp_path / "originals" / "cats").mkdir(parents=True)
    (tmp_path / "made" / "cats").mkdir(parents=True)
    for i, name in enumerate(["a", "b", "cats/c", "cats/d", "e"]):
        picture = photograph.crop((40 * i, 0, 40 * i + 40, 30))
        picture.save(tmp_path / "originals" / f"{name}.png")
        crop = np.asarray(picture.resize((32, 24), Image.Resampling.BICUBIC).crop((4, 0, 28, 24))).astype(int)
        made = np.where(crop > 127, crop - (i + 1), crop + (i + 1)).astype(np.uint8)
        Image.fromarray(made).save(tmp_path / "made" / f"{name}.webp", lossless=True)
    return tmp_path


def evaluated(folder, **options):
    return evaluate_folders(*open_folders(folder / "originals", folder / "made"), progress=False, **options)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_known_errors_give_the_psnr_by_hand(folders, batch_size):
    results = evaluated(folders, batch_size=batch_size, measures=Measures(("psnr",)))
    expected = np.mean([20 * np.log10(255 / (i + 1)) for i in range(5)])
    assert results["metrics"]["psnr"] == pytest.approx(expected, rel=1e-6)
    assert results["protocol"]["pictures"] == 5
    assert results["protocol"]["resolution"] == 24
    assert [entry["row"] for entry in results["extremes"]["worst"]] == [4, 3, 2]


def test_equal_folders_are_identical(folders):
    originals, _ = open_folders(folders / "made", folders / "made")
    assert evaluate_folders(originals, originals, progress=False)["metrics"]["psnr"] == float("inf")


@pytest.mark.parametrize("broken", ["made/b.webp", "originals/b.png"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_one_that_cannot_be_read_takes_its_pair_and_no_other(folders, broken, batch_size):
    (folders / broken).write_bytes(b"no picture")
    with pytest.raises(DatasetError, match="row 1 .* cannot be read"):
        evaluated(folders)
    results = evaluated(folders, on_error="skip", batch_size=batch_size)
    assert results["metrics"]["psnr"] == pytest.approx(
        np.mean([20 * np.log10(255 / k) for k in (1, 3, 4, 5)])
    )
    assert results["protocol"]["unreadable_rows"] == [1]


def test_a_reconstruction_of_another_size_is_said(folders):
    Image.new("RGB", (20, 24)).save(folders / "made" / "cats" / "d.webp")
    with pytest.raises(DatasetError, match="row 3 .* expected 24 x 24 pixels, got 20 x 24"):
        evaluated(folders)


def test_folders_of_different_names_are_said(folders):
    (folders / "made" / "e.webp").rename(folders / "made" / "f.webp")
    with pytest.raises(DatasetError, match="lacks 1 of 5 pictures, such as e"):
        evaluated(folders)
    Image.new("RGB", (24, 24)).save(folders / "made" / "e.png")
    with pytest.raises(DatasetError, match="5 pictures, .* 6, such as f"):
        evaluated(folders)
    Image.new("RGB", (24, 24)).save(folders / "made" / "e.webp")
    with pytest.raises(DatasetError, match="e twice"):
        evaluated(folders)


def test_a_folder_without_pictures_and_no_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, said in (("empty", "holds no pictures"), ("nothing", "is not a folder")):
        with pytest.raises(DatasetError, match=said):
            open_folders(tmp_path / name, tmp_path / name)


def test_expected_numbers_are_held(folders):
    with pytest.raises(ValueError, match="Expected 50,000 pictures, got 5"):
        evaluated(folders, expected=50_000)


def test_psnr_is_of_the_files(folders):
    made = np.asarray(Image.open(folders / "made" / "a.webp"))
    picture = Image.open(folders / "originals" / "a.png").resize((32, 24), Image.Resampling.BICUBIC)
    original = np.asarray(picture.crop((4, 0, 28, 24)))
    a, b = (torch.from_numpy(x.copy()).movedim(-1, 0)[None] / 255 for x in (made, original))
    assert evaluated(folders, limit=1)["metrics"]["psnr"] == pytest.approx(psnr(a, b).item())
