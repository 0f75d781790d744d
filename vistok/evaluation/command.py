"""What `vistok evaluate` and `vistok compare` do: models or folders in, results, tables and plots out."""

import importlib.util
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..data import Source
from ..files import publish
from ..modeling import VQModelHF
from .folders import FolderSource, evaluate_folders
from .measures import Measures, fitting
from .model_index import card_of, update_card
from .protocol import at_most, evaluate, format_metrics
from .ranks import rank
from .report import RESULTS, comparison, named, to_json
from .self_test import self_test
from .sheet import draw_extremes, draw_folder_extremes
from .tables import describe

logger = logging.getLogger(__name__)


class Evaluation:
    """Evaluates models one after the other, shows their metrics, and writes what it has as soon as it has it.

    Args:
        measures: The metrics.
        asked: The names of metrics that were asked for, None for all that there are.
        output_dir: Where everything goes; None to show the results only.
        say: Shows a line to a person; the first rank alone is heard.
        **protocol: What `evaluate` and `evaluate_folders` take: crop, batch size and so on.
    """

    def __init__(
        self,
        measures: Measures,
        *,
        asked: Sequence[str] | None,
        output_dir: Path | None,
        say: Callable[[str], None],
        **protocol: Any,
    ):
        self.measures, self.asked, self.protocol = measures, asked, protocol
        self.output_dir, self.say = output_dir, say
        self.results: list[dict[str, Any]] = []
        self._fitted: dict[int, Measures] = {}
        self_test(measures)

    def evaluate_models(
        self,
        groups: Sequence[Sequence[str]],
        source: Source,
        *,
        resolution: int | None,
        device: torch.device,
        card: bool,
    ) -> None:
        """Evaluates models on a split.

        Args:
            groups: Folders or Hub ids; those of one inner list are seeds of one model.
            source: The split.
            resolution: Height and width in pixels; by default each model's.
            device: Where the models compute.
            card: Whether the results go into the cards of the models, which are local folders.
        """
        alone = sum(map(len, groups)) == 1
        if card:
            for path in (path for group in groups for path in group):
                card_of(path)  # before hours of work
        for paths, names in zip(groups, named(groups), strict=True):
            for path, (name, group) in zip(paths, names, strict=True):
                model = VQModelHF.from_pretrained(path).to(device).eval()
                size = model.config.image_size if resolution is None else resolution
                measures = self._fitting(size, source)
                results = evaluate(model, source, measures=measures, resolution=size, **self.protocol)
                results = {"name": name, "group": group, **results}
                self._show(results)
                if self._writes:
                    folder = self.output_dir if alone else self.output_dir / name
                    self._write(folder, results, partial(draw_extremes, model, source, results, name))
                if card and rank() == 0:
                    self.say(f"Wrote the results into {update_card(path, results)}")
        self._compare()

    def evaluate_folders(self, references: FolderSource, made: FolderSource) -> None:
        """Evaluates the pictures of anybody's tokenizer.

        Args:
            references: The originals, of `open_folders`.
            made: The reconstructions.
        """
        measures = self._fitting(made.side, references)
        results = evaluate_folders(references, made, measures=measures, **self.protocol)
        name = Path(made.name).resolve().name
        results = {"name": name, "group": name, **results}
        self._show(results)
        if self._writes:
            draw = partial(draw_folder_extremes, references, made, results, name)
            self._write(self.output_dir, results, draw)
        self._compare()

    def _fitting(self, size: int, source: Source) -> Measures:
        if size not in self._fitted:  # so that what does not fit is said once
            count = at_most(source, self.protocol.get("limit"))
            self._fitted[size] = fitting(self.measures, size, self.asked, count)
        return self._fitted[size]

    @property
    def _writes(self) -> bool:
        return self.output_dir is not None and rank() == 0

    def _show(self, results: dict[str, Any]) -> None:
        """At once: whatever happens to the disk, the numbers are there to read."""
        self.results.append(results)
        if rank() == 0:
            rates = {name: rate for name, rate in results.get("speed", {}).items() if name.endswith("second")}
            self.say(f"{results['name']}: {format_metrics(results['metrics'] | rates)}")
            self.say(f"  {describe(results['protocol'])}")

    def _write(self, folder: Path, results: dict[str, Any], draw: Callable[[], Image.Image]) -> None:
        """The numbers first: whatever happens to the sheet, they are there."""
        text = to_json(results)
        publish(folder, lambda temporary: (temporary / RESULTS).write_text(text, encoding="utf-8"))
        if results["extremes"]:
            sheet = draw()
            publish(folder, lambda temporary: sheet.save(temporary / "sheet.png"))
        self.say(f"Wrote {folder / RESULTS}{' and sheet.png' if results['extremes'] else ''}")

    def _compare(self) -> None:
        if self._writes:
            compare(self.results, self.output_dir, self.say)


def compare(results: Sequence[dict[str, Any]], output_dir: Path, say: Callable[[str], None]) -> None:
    """Writes the tables over results, and the plots where matplotlib is installed.

    Args:
        results: Of `Evaluation` or `read_all`.
        output_dir: Where the tables and plots go.
        say: Shows a line to a person.

    Raises:
        ValueError: Two results of one protocol have the same name.
    """
    plots = importlib.util.find_spec("matplotlib") is not None
    if not plots:
        logger.warning('Without plots: they need matplotlib: pip install "vistok[eval]"')
    files = comparison(results, plots)

    def write(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).write_bytes(content)

    publish(output_dir, write)
    say(f"Wrote {', '.join(files)} to {output_dir}")
