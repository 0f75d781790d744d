"""The log of a run: one JSON line for each logged step, and a tracker."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from .config import TrainingConfig


class Journal:
    """Writes the values of a run to `log.jsonl` and to TensorBoard.

    The lines of a resumed run follow those up to its checkpoint, so that the file is the log of one
    uninterrupted run.

    Args:
        config: The settings of the run.

    Raises:
        ValueError: The tracker is not installed.
    """

    def __init__(self, config: TrainingConfig):
        self.config = config
        if config.report_to == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
            raise ValueError(
                'report_to is tensorboard, which is not installed: pip install "vistok[train]", or none'
            )
        self._lines: Any = None
        self._board: Any = None

    def open(self, output_dir: Path, step: int) -> None:
        """Opens the log after `step`: later lines, of a run that was killed, are dropped."""
        path = output_dir / "log.jsonl"
        kept = [line for line in _lines_of(path) if line["step"] <= step]
        temporary = path.with_name(".tmp-log.jsonl")
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)
        os.replace(temporary, path)
        self._lines = path.open("a", encoding="utf-8")
        if self.config.report_to == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(
                str(output_dir / "tensorboard" / self.config.tracker_project_name), purge_step=step + 1
            )
            self._board.add_text(
                "config", f"```json\n{json.dumps(self.config.to_dict(), indent=2)}\n```", step
            )

    def write(self, step: int, values: dict[str, float]) -> None:
        """Logs named values of a step."""
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        self.track(step, values)

    def track(self, step: int, values: dict[str, float]) -> None:
        """Shows named values to the tracker alone."""
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes the log and the tracker."""
        if self._lines is not None:
            self._lines.close()
        if self._board is not None:
            self._board.close()


def _lines_of(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:  # the last line of a killed run may be cut
            break
    return lines
