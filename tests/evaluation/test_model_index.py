"""Results in model cards: the Hub's own reader finds them, and a second evaluation replaces the first."""

import pytest
from huggingface_hub import ModelCard

from vistok import FSQConfig, VQModelHF
from vistok.evaluation.model_index import eval_results, update_card

from .test_tables import result

CARD = "---\nlibrary_name: vistok\ntags:\n- mine\n---\n\n# A card\n\nSomebody wrote this.\n"


def of(psnr: float, **protocol) -> dict:
    return result("a", psnr, dataset_revision="0" * 40, dataset_fingerprint="f", **protocol)


def test_a_card_keeps_its_text_and_gets_the_results(tmp_path):
    (tmp_path / "README.md").write_text(CARD)
    update_card(tmp_path, of(20.0))
    card = ModelCard.load(tmp_path / "README.md")
    assert "Somebody wrote this." in card.text and card.data.tags == ["mine"]
    (found,) = [one for one in card.data.eval_results if one.metric_type == "psnr"]
    assert (found.metric_value, found.dataset_split, found.dataset_revision) == (20.0, "validation", "0" * 40)
    assert found.metric_args["resolution"] == 64 and found.metric_args["crop"] == "center_crop"


def test_a_second_evaluation_replaces_the_first_of_its_protocol(tmp_path):
    (tmp_path / "README.md").write_text(CARD)
    for results in (of(20.0), of(19.0, crop="adm_crop"), of(21.0)):
        update_card(tmp_path, results)
    found = [
        one for one in ModelCard.load(tmp_path / "README.md").data.eval_results if one.metric_type == "psnr"
    ]
    assert sorted(one.metric_value for one in found) == [19.0, 21.0]


def test_the_next_save_of_the_model_keeps_the_results(tmp_path):
    model = VQModelHF(
        FSQConfig(image_size=32, network={"model_type": "vistok_simple_cnn", "hidden_channels": 8})
    )
    model.save_pretrained(tmp_path)
    update_card(tmp_path, of(20.0))
    model.save_pretrained(tmp_path)
    assert ModelCard.load(tmp_path / "README.md").data.eval_results


def test_what_is_infinite_is_left_out():
    assert "psnr" not in [one.metric_type for one in eval_results(of(float("inf")))]


def test_a_card_that_cannot_be_written_stays_and_leaves_nothing(tmp_path, monkeypatch):
    def fails(_):
        raise OSError("no room")

    (tmp_path / "README.md").write_text(CARD)
    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match="no room"):
        update_card(tmp_path, of(20.0))
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == CARD


def test_a_folder_without_a_card_is_said(tmp_path):
    with pytest.raises(ValueError, match="has no README.md"):
        update_card(tmp_path, of(20.0))
