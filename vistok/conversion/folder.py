"""The folder that a conversion writes: nobody's files are lost, and it is there whole or does not load."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..files import flush, free_space
from ..messages import one_line
from ..model_card import write_model_card
from ..modeling import VQModelHF

_TEMPORARY = ".tmp-convert"
_OF_A_TOKENIZER = re.compile(
    r"config\.json|model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|preprocessor_config\.json|README\.md"
)
_OF_NO_MATTER = re.compile(rf"\.git.*|\.cache|{re.escape(_TEMPORARY)}")


def check_folder(folder: Path) -> None:
    """Refuses a folder that would lose something.

    Raises:
        ValueError: There is anything in it but a tokenizer of vistok, or what a killed conversion left.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"--output_dir {folder} is a file")
    names = {path.name for path in folder.iterdir()}
    foreign = {name for name in names if not _OF_NO_MATTER.fullmatch(name)}
    if _is_of_vistok(folder / "config.json") or "config.json" not in names and _TEMPORARY in names:
        foreign = {name for name in foreign if not _OF_A_TOKENIZER.fullmatch(name)}
    if foreign:
        raise ValueError(
            f"--output_dir {folder} holds what is not of a vistok tokenizer "
            f"({', '.join(sorted(foreign)[:5])}): choose a new folder"
        )


def _is_of_vistok(config: Path) -> bool:
    try:
        settings = json.loads(config.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(settings, dict) and str(settings.get("model_type")).startswith("vistok_")


def write_folder(model: VQModelHF, folder: Path, name: str, sections: dict[str, str]) -> None:
    """Writes a folder whole: beside what is there, then moved in, the configuration last.

    Without its configuration a folder does not load: killed in between, it is never half a tokenizer. The
    folder beside stays until the end, for by it the next conversion knows that the rest is of a killed one.

    Args:
        model: What to write.
        folder: Where; made if needed.
        name: By which users will load it, for the card.
        sections: Further ones of the card, by their titles.

    Raises:
        ValueError: It cannot be written, or another process writes there; the folder is as it was.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    temporary = folder / _TEMPORARY
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        with _alone(temporary):
            _empty(temporary)
            try:
                _move_in(model, folder, temporary, name, sections)
            except BaseException:
                _empty(temporary)
                whole = (folder / "config.json").exists()
                if whole or not any(_OF_A_TOKENIZER.fullmatch(path.name) for path in folder.iterdir()):
                    temporary.rmdir()
                raise
    except BaseException as error:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
        if not isinstance(error, Exception):
            raise
        problem = one_line(error)
        if "No space" in problem:
            room = next(path for path in (folder, *folder.absolute().parents) if path.exists())
            problem += f": make room, {free_space(room)} are free"
        raise ValueError(f"Could not write to {folder}: {problem}") from error


def _move_in(model: VQModelHF, folder: Path, temporary: Path, name: str, sections: dict[str, str]) -> None:
    write_model_card(model, temporary, name=name, sections=sections)
    model.save_pretrained(temporary)
    files = sorted(temporary.iterdir(), key=lambda path: path.name == "config.json")
    for path in files:
        flush(path)
    for path in (folder / "config.json", *folder.glob("model*.safetensors*")):
        path.unlink(missing_ok=True)
    for path in files:
        path.replace(folder / path.name)
    temporary.rmdir()
    flush(folder)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuses where another process is within; one that was killed no longer is."""
    import fcntl  # only here: Windows has none

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError("another conversion is writing there") from error
        except OSError:
            pass  # some network file systems have no locks; two writers at once would disturb each other
        yield
    finally:
        os.close(descriptor)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
