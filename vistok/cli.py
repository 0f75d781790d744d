"""The `vistok` command: parsing only; each command imports what it needs when it runs."""

import argparse
import difflib
import errno
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from . import __version__
from .memory import keep_freed_memory

_JOBS = ("train", "evaluate", "extract", "decode")  # that compute for long, and then end


class _Parser(argparse.ArgumentParser):
    """argparse, whose complaint is one line instead of the usage of every flag."""

    def error(self, message: str) -> NoReturn:
        flag = message.removeprefix("unrecognized arguments: ").split()[0]
        close = difflib.get_close_matches(flag, _all_flags(build_parser()), n=1)
        hint = (
            f"; did you mean {close[0]}?"
            if flag != message.split()[0] and close
            else f"; see {self.prog} --help"
        )
        self.exit(2, f"{self.prog}: {message}{hint}\n")


class _ListPublished(argparse.Action):
    """Like --help: it asks for none of the other arguments."""

    def __call__(self, parser: argparse.ArgumentParser, *_) -> NoReturn:
        from .conversion.families import published_table

        print(published_table())
        parser.exit()


def _all_flags(parser: argparse.ArgumentParser) -> list[str]:
    flags = list(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            flags += [flag for command in action.choices.values() for flag in _all_flags(command)]
    return flags


def build_parser() -> argparse.ArgumentParser:
    """The parser of `vistok` with a subcommand for each job."""
    parser = _Parser(prog="vistok", description="Pictures to tokens and tokens to pictures.")
    parser.add_argument("--version", action="version", version=f"vistok {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, add_flags, text in (
        ("train", _train_flags, "train a tokenizer from a recipe"),
        ("evaluate", _evaluate_flags, "measure tokenizers on a split"),
        ("compare", _compare_flags, "tables and plots of results"),
        ("convert", _convert_flags, "convert a published checkpoint"),
        ("demo", _demo_flags, "see tokenizers work, in the browser"),
        ("extract", _extraction_flags("extract"), "write the tokens of a dataset"),
        ("verify", _extraction_flags("verify"), "look for damage in a folder of tokens"),
        ("export", _extraction_flags("export"), "write tokens in another project's layout"),
        ("decode", _extraction_flags("decode"), "turn tokens back into pictures"),
        ("quickstart", _quickstart_flags, "train a small tokenizer on embedded photographs and use it"),
    ):
        add_flags(commands.add_parser(name, help=text, allow_abbrev=False))
    return parser


def _train_flags(parser: argparse.ArgumentParser) -> None:
    from .training.arguments import add_flags

    add_flags(parser)
    parser.set_defaults(run=_train)


def _evaluate_flags(parser: argparse.ArgumentParser) -> None:
    from .evaluation.arguments import add_flags

    add_flags(parser)
    parser.set_defaults(run=_evaluate)


def _compare_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RESULTS",
        help="eval_results.json of vistok evaluate or train, or folders that hold one",
    )
    parser.add_argument("--output_dir", required=True, help="folder for the tables and plots")
    parser.set_defaults(run=_compare)


def _convert_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("family", help="whose layout the checkpoint has; --list shows all")
    parser.add_argument("source", help="file, folder, Hub id, or Hub id with a file: org/name/file.pt")
    parser.add_argument("--output_dir", required=True, help="folder to write: a new one, or a tokenizer's")
    parser.add_argument(
        "--config", help="the project's settings; by default the YAML or JSON beside the file"
    )
    parser.add_argument("--weights", choices=("raw", "ema"), help="which weights, where a file has both")
    parser.add_argument("--levels", type=int, nargs="+", help="levels of FSQ, where the file does not tell")
    parser.add_argument("--scales", type=int, nargs="+", help="sides of a multi-scale tokenizer's token maps")
    parser.add_argument("--image_size", type=int, help="height and width in pixels; by default the project's")
    parser.add_argument("--push_to_hub", metavar="ORG/NAME", help="repository to upload the tokenizer to")
    parser.add_argument(
        "--list", action=_ListPublished, nargs=0, help="show the published checkpoints and exit"
    )
    parser.set_defaults(run=_convert)


def _demo_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        action="append",
        metavar="MODEL",
        help="folder or Hub id of a tokenizer, once for each; default: the one of `vistok quickstart`",
    )
    parser.add_argument("--server_name", help="address to listen on (default: 127.0.0.1, this machine alone)")
    parser.add_argument(
        "--server_port", type=int, help="port to listen on (default: the first free from 7860)"
    )
    parser.set_defaults(run=_demo)


def _extraction_flags(name: str) -> Callable[[argparse.ArgumentParser], None]:
    def add(parser: argparse.ArgumentParser) -> None:
        from .extraction import arguments

        getattr(arguments, f"add_{name}_flags")(parser)
        parser.set_defaults(run=_lines_of(getattr(arguments, f"run_{name}")))

    return add


def _quickstart_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output_dir", default="outputs/quickstart", help="folder for everything it makes")
    parser.set_defaults(run=_quickstart)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; what goes wrong by the user's doing is one line and the exit status 1.

    Args:
        arguments: The words after `vistok`; by default those of the process.
    """
    try:
        return _main(arguments)
    except KeyboardInterrupt:
        print("Interrupted", file=sys.stderr)
        return 130


def _main(arguments: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    dotted: list[str] = []
    if arguments[:1] == ["train"]:
        from .training.arguments import split_dotted

        arguments, dotted = split_dotted(arguments)
    flags = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    from huggingface_hub.utils import disable_progress_bars
    from transformers.utils import logging as transformers_logging

    if flags.command != "convert":  # which downloads gigabytes
        disable_progress_bars()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    if flags.command in _JOBS:
        keep_freed_memory()
    try:
        flags.run(flags, dotted)
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError):
            if not type(error).__module__.startswith("vistok."):
                raise  # a defect: its traceback is what a report needs
            from .training.ranks import PeerError

            if isinstance(error, PeerError):
                return 1  # the process where it went wrong says why
        message = " ".join(str(error).split())
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            message += "; make room and run the same command again"
            if flags.command == "train":
                message += ", with --resume_from_checkpoint latest to go on"
        print(f"vistok {flags.command}: {message}", file=sys.stderr)
        return 1
    return 0


def _train(flags: argparse.Namespace, dotted: list[str]) -> None:
    from .training import Trainer
    from .training.arguments import training_config

    settings = {name: value for name, value in vars(flags).items() if name not in ("command", "run")}
    config = training_config(settings, dotted)
    trainer = Trainer(config)
    trainer.train()
    if trainer.accelerator.is_main_process:
        print(f"Wrote the tokenizer to {config.output_dir}; VQModelHF.from_pretrained loads it from there")
    trainer.accelerator.end_training()


def _evaluate(flags: argparse.Namespace, dotted: list[str]) -> None:
    from .evaluation.arguments import run

    run(flags, print)


def _compare(flags: argparse.Namespace, dotted: list[str]) -> None:
    from pathlib import Path

    from .evaluation.command import compare
    from .evaluation.report import read_all

    compare(read_all(flags.results), Path(flags.output_dir), print)


def _convert(flags: argparse.Namespace, dotted: list[str]) -> None:
    from .conversion import convert

    report = convert(
        flags.family,
        flags.source,
        output_dir=flags.output_dir,
        config_file=flags.config,
        weights=flags.weights,
        levels=flags.levels,
        scales=flags.scales,
        image_size=flags.image_size,
        push_to_hub=flags.push_to_hub,
    )
    print(report)


def _demo(flags: argparse.Namespace, dotted: list[str]) -> None:
    try:
        import gradio  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError('The page needs gradio: pip install "vistok[space]"') from error

    from .demo.page import build

    build(flags.model or ()).launch(server_name=flags.server_name, server_port=flags.server_port)


def _lines_of(
    run: Callable[[argparse.Namespace], Iterator[str]],
) -> Callable[[argparse.Namespace, list[str]], None]:
    def shown(flags: argparse.Namespace, dotted: list[str]) -> None:
        for line in run(flags):
            print(line)

    return shown


def _quickstart(flags: argparse.Namespace, dotted: list[str]) -> None:
    from .training.quickstart import quickstart

    print(quickstart(flags.output_dir))


if __name__ == "__main__":
    sys.exit(main())
