"""The log of a run: JSON lines in a file, and the same values in a tracker."""

import importlib
import importlib.util
import json
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .config import TrainingConfig


class Journal:
    """Writes the values of a run to `log.jsonl` and to its tracker.

    The lines of a resumed run follow those up to its checkpoint, so that the file is the log of one
    uninterrupted run; what depends on the machine is named `performance/...`.

    Args:
        config: The settings of the run.

    Raises:
        ValueError: The tracker is not installed.
    """

    def __init__(self, config: TrainingConfig):
        self.config = config
        tracker = config.report_to
        found = None if tracker == "none" else importlib.util.find_spec(tracker)
        # A folder of that name, such as wandb's own logs, is found too, but has no file of its own.
        if tracker != "none" and (found is None or found.origin is None):
            package = '"vistok[train]"' if tracker == "tensorboard" else tracker
            raise ValueError(
                f"report_to is {tracker}, which is not installed: pip install {package}, or --report_to none"
            )
        self._path = Path()
        self._tracker: Any = None

    def open(self, output_dir: Path, step: int) -> None:
        """Opens the log after `step`: later lines, of a run that was killed, are dropped."""
        self._path = output_dir / "log.jsonl"
        kept = [line for line in _lines_of(self._path) if line["step"] <= step]
        temporary = self._path.with_name(".tmp-log.jsonl")
        temporary.unlink(missing_ok=True)
        _append(temporary, kept)
        os.replace(temporary, self._path)
        if self.config.report_to == "tensorboard":
            self._tracker = _TensorBoard(self.config, output_dir, step)
        elif self.config.report_to != "none":
            self._tracker = _Run(self.config, output_dir)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Logs named values of a step."""
        _append(self._path, [{"step": step, **values}])
        self.track(step, values)

    def track(self, step: int, values: dict[str, float]) -> None:
        """Shows named values to the tracker alone."""
        if self._tracker is not None:
            self._tracker.log(step, values)

    def show(self, step: int, name: str, picture: Image.Image) -> None:
        """Shows a picture to the tracker."""
        if self._tracker is not None:
            self._tracker.show(step, name, picture)

    def close(self) -> None:
        """Closes the tracker."""
        if self._tracker is not None:
            self._tracker.close()


class _TensorBoard:
    """TensorBoard's files in the run's folder."""

    def __init__(self, config: TrainingConfig, output_dir: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter

        folder = output_dir / "tensorboard" / config.tracker_project_name
        self._board = SummaryWriter(str(folder), purge_step=step + 1)
        self._board.add_text("config", f"```json\n{json.dumps(config.to_dict(), indent=2)}\n```", step)

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def show(self, step: int, name: str, picture: Image.Image) -> None:
        self._board.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        self._board.close()


class _Run:
    """A run of wandb, or of trackio, which has the same calls.

    A resumed training goes on in the same run: its name is that of the folder, and wandb's id of the run is
    kept beside the checkpoints.
    """

    def __init__(self, config: TrainingConfig, output_dir: Path):
        self._library = importlib.import_module(config.report_to)
        options: dict[str, Any] = {"resume": "allow"}
        if config.report_to == "wandb":
            path = output_dir / "wandb_run_id"
            if not path.exists():
                path.write_text(uuid.uuid4().hex[:8], encoding="utf-8")
            options |= {"id": path.read_text(encoding="utf-8").strip(), "dir": str(output_dir)}
        self._library.init(
            project=config.tracker_project_name,
            name=output_dir.resolve().name,
            config=config.to_dict(),
            **options,
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        self._library.log(values, step=step)

    def show(self, step: int, name: str, picture: Image.Image) -> None:
        self._library.log({name: self._library.Image(picture)}, step=step)

    def close(self) -> None:
        self._library.finish()


def _append(path: Path, lines: list[dict[str, Any]]) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    except OSError as error:  # that of a full disk names no file
        raise OSError(error.errno, error.strerror, str(path)) from error


def _lines_of(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # the last line of a killed run may be cut
            break
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            raise ValueError(f"{path} is not the log of a run: choose another --output_dir")
        lines.append(line)
    return lines
