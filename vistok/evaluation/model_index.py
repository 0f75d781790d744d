"""Results of an evaluation as the Hub keeps them: the `model-index` of a model card."""

import math
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from ..files import write_whole
from ..model_card import UNTOUCHED
from .tables import COLUMNS

_NOT_QUALITY = {"resolution", "parameters", "encode_images_per_second", "decode_images_per_second"}


def eval_results(results: dict[str, Any]) -> list[EvalResult]:
    """Each metric with its dataset and protocol.

    Args:
        results: What `evaluate` returned.
    """
    protocol = results["protocol"]
    return [
        EvalResult(
            task_type="image-to-image",
            task_name="Image reconstruction",
            dataset_type=protocol["dataset"],
            dataset_name=protocol["dataset"].split("/")[-1],
            dataset_split=protocol["split"],
            dataset_revision=protocol["dataset_revision"],
            metric_type=column.key,
            metric_name=column.title,
            metric_value=results["metrics"][column.key],
            # Not the dataset's: huggingface_hub takes those of one result for all of a dataset.
            metric_args={
                "pictures": protocol["pictures"],
                "resolution": protocol["resolution"],
                "crop": protocol["crop"],
                "dataset_fingerprint": protocol["dataset_fingerprint"],
            },
        )
        for column in COLUMNS
        if column.key not in _NOT_QUALITY and math.isfinite(results["metrics"].get(column.key, math.nan))
    ]


def card_of(folder: str | Path) -> Path:
    """The card in a model's folder.

    Raises:
        ValueError: It has none, or is no folder.
    """
    path = Path(folder) / "README.md"
    if not path.is_file():
        raise ValueError(f"{folder} has no README.md: a card is updated in a local folder of a model")
    return path


def update_card(folder: str | Path, results: dict[str, Any], name: str | None = None) -> Path:
    """Puts results into the `model-index` of a model's card; those of the same metric, data and protocol go.

    Args:
        folder: That of the model.
        results: What `evaluate` returned.
        name: What the model is called; by default as the card calls it, or the folder.

    Returns:
        The path of the card.

    Raises:
        ValueError: The folder has no card.
    """
    path = card_of(folder)
    card = ModelCard.load(path)
    new = eval_results(results)
    kept = [
        old for old in card.data.eval_results or [] if not any(old.is_equal_except_value(one) for one in new)
    ]
    card.data.model_name = name or card.data.model_name or Path(folder).resolve().name
    card.data.eval_results = [*kept, *new]
    card.text = card.text.replace(UNTOUCHED, "")  # from now on it holds what saving the model would lose
    write_whole(path, str(card).encode())
    return path
