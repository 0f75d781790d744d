"""What README.md and CONTRIBUTING.md show works: Python runs, commands name targets and flags that exist."""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
DOCUMENTS = [name for name in ("README.md", "CONTRIBUTING.md") if (ROOT / name).exists()]
# Scripts of three lines, and the command that each is; others have a parser of their own.
COMMAND_SCRIPTS = {
    "scripts/train.py": "train",
    "scripts/evaluate.py": "evaluate",
    "scripts/extract_tokens.py": "extract",
}
SHELLS = ("bash", "sh", "shell", "console")

# The blocks of a page, each at its own lines, so that a traceback points into the page. They are one session.
RUN_BLOCKS = """
import sys
namespace = {"__name__": "__main__"}
for page, line, block in BLOCKS:
    exec(compile("\\n" * line + block, page, "exec"), namespace)
"""


def blocks(page: str, *languages: str) -> list[tuple[str, int, str]]:
    """The fenced blocks of a page in one of the languages: page, number of lines above, text."""
    text = (ROOT / page).read_text()
    fences = re.finditer(r"^```(\w+)[^\n]*\n(.*?)^```\s*$", text, re.DOTALL | re.MULTILINE)
    return [(page, text.count("\n", 0, f.start(2)), f[2]) for f in fences if f[1] in languages]


def commands(script: str) -> Iterator[list[str]]:
    """The simple commands of a shell script as words, without the variables set before them."""
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.commenters = "#"
        command: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();<>|&"):
                if command:
                    yield command
                command = []
            elif command or not re.match(r"\w+=", word):
                command.append(word)


def subcommands() -> dict[str, argparse.ArgumentParser]:
    from vistok.cli import build_parser

    actions = build_parser()._actions
    return next(a.choices for a in actions if isinstance(a, argparse._SubParsersAction))


def tokenizer_fields() -> set[str]:
    """All that may stand in `--tokenizer.FIELD` and `--tokenizer.network.FIELD`."""
    from vistok import NetworkConfig, VisualTokenizerConfig

    def fields(config_class: type, prefix: str) -> set[str]:
        own = {f"{prefix}.{name}" for name in config_class.__dataclass_fields__}
        return own.union(*(fields(sub, prefix) for sub in config_class.__subclasses__()))

    return (
        fields(VisualTokenizerConfig, "--tokenizer")
        | fields(NetworkConfig, "--tokenizer.network")
        | {"--tokenizer.model_type", "--tokenizer.network.model_type"}
    )


def vistok_arguments(command: list[str]) -> list[str] | None:
    """`train RECIPE --flag ...` of a command that runs vistok, also through scripts/; None for others."""
    if Path(command[0]).name == "vistok":
        return command[1:]
    for place, word in enumerate(command):
        if word in COMMAND_SCRIPTS:
            return [COMMAND_SCRIPTS[word], *command[place + 1 :]]
    return None


def flags_of_script(command: list[str]) -> set[str] | None:
    """The flags that a script with a parser of its own adds; None where no such script is run."""
    for word in command:
        if re.fullmatch(r"scripts/.*\.py", word) and word not in COMMAND_SCRIPTS and (ROOT / word).exists():
            return set(re.findall(r"add_argument\(\s*\"(--\w+)\"", (ROOT / word).read_text()))
    return None


def faults(command: list[str]) -> list[str]:
    """What a command of a page names that does not exist."""
    found = [
        word for word in command if re.match(r"scripts/.*\.(py|sh)$", word) and not (ROOT / word).exists()
    ]
    if command[0] == "make":
        targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        return found + [w for w in command[1:] if "=" not in w and not w.startswith("-") and w not in targets]
    own = flags_of_script(command)
    if own is not None:
        return found + [w for w in command if w.startswith("--") and w.split("=")[0] not in own]
    arguments = vistok_arguments(command)
    if not arguments or arguments[0].startswith("-"):
        return found
    name, *rest = arguments
    parser = subcommands().get(name)
    if parser is None:
        return [*found, name]
    flags = [word.split("=")[0] for word in rest if word.startswith("--")]
    known = parser._option_string_actions.keys() | tokenizer_fields()
    if name == "train" and rest and re.fullmatch(r"\w+", rest[0]):
        found += [rest[0]] if not (ROOT / "vistok" / "recipes" / f"{rest[0]}.yaml").exists() else []
    return found + [flag for flag in flags if flag not in known]


@pytest.fixture
def folder_with_a_picture(tmp_path):
    """Where a page's blocks run: an empty folder with the photo.jpg that they may open."""
    from skimage import data

    Image.fromarray(data.chelsea()).save(tmp_path / "photo.jpg")
    return tmp_path


@pytest.mark.parametrize("page", DOCUMENTS)
def test_python_blocks_run(page, hub_env, folder_with_a_picture):
    code = f"BLOCKS = {blocks(page, 'python')!r}\n{RUN_BLOCKS}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_TELEMETRY": "1", **hub_env}
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder_with_a_picture,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("page", DOCUMENTS)
def test_shell_blocks_parse(page):
    for _, line, block in blocks(page, *SHELLS):
        result = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert result.returncode == 0, f"{page}, block at line {line + 1}: {result.stderr}"


@pytest.mark.parametrize("page", DOCUMENTS)
def test_commands_name_what_exists(page):
    shown = [command for _, _, block in blocks(page, *SHELLS) for command in commands(block)]
    assert shown, "a page without a single command: is the pattern of this test still right?"
    assert {shlex.join(c): wrong for c in shown if (wrong := faults(c))} == {}


def test_every_page_is_there():
    assert DOCUMENTS == ["README.md", "CONTRIBUTING.md"]


@pytest.mark.parametrize(
    ("script", "wrong"),
    [
        ("make nothing", ["nothing"]),
        ("make TORCH='torch==2.15.0' test  # a comment", []),
        ("ls && make -j2 nothing | tail", ["nothing"]),
        ("vistok nothing", ["nothing"]),
        ("vistok train --learning_rat 1", ["--learning_rat"]),
        ("vistok train --tokenizer.level 8", ["--tokenizer.level"]),
        (
            "vistok train \\\n  --learning_rate 1 --tokenizer.levels 8 --tokenizer.network.hidden_channels 9",
            [],
        ),
        ("vistok train no_such_recipe", ["no_such_recipe"]),
        ("accelerate launch scripts/train.py --learning_rat 1", ["--learning_rat"]),
        ("accelerate launch scripts/extract_tokens.py --view flip", ["--view"]),
        ("python scripts/train_ar.py --token x --num_classes 3", ["--token"]),
        ("python scripts/nothing.py", ["scripts/nothing.py"]),
        ("echo --anything", []),
    ],
)
def test_a_wrong_command_is_seen(script, wrong):
    assert [fault for command in commands(script) for fault in faults(command)] == wrong
