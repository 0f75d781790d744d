"""The `vistok` command: parsing only; each command imports what it needs when it runs."""

import argparse
import difflib
import errno
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from . import __version__


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

    train = commands.add_parser("train", help="train a tokenizer from a recipe", allow_abbrev=False)
    from .training.arguments import add_flags

    add_flags(train)
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", help="measure a tokenizer on a split", allow_abbrev=False)
    evaluate.add_argument("--model", required=True, help="folder or Hub id of the tokenizer")
    evaluate.add_argument(
        "--dataset_name", required=True, help="Hub id, folder, Parquet files, tars or samples"
    )
    evaluate.add_argument("--dataset_config_name", help="the dataset's configuration on the Hub")
    evaluate.add_argument("--dataset_revision", help="branch, tag or commit of the dataset")
    evaluate.add_argument("--split", default="validation", help="split to evaluate (default: validation)")
    evaluate.add_argument("--image_column", help="column of the pictures; by default the first image column")
    evaluate.add_argument("--resolution", type=int, help="height and width in pixels; by default the model's")
    evaluate.add_argument("--batch_size", type=int, default=64, help="pictures at a time (default: 64)")
    evaluate.add_argument(
        "--num_workers", type=int, default=0, help="processes that decode pictures (default: 0)"
    )
    evaluate.add_argument("--max_samples", type=int, help="evaluate the first so many pictures only")
    evaluate.add_argument(
        "--on_unreadable",
        choices=("error", "skip"),
        default="error",
        help="what to do with an unreadable picture",
    )
    evaluate.add_argument(
        "--output_dir", help="folder for eval_results.json; by default the results are only shown"
    )
    evaluate.set_defaults(run=_evaluate)

    convert = commands.add_parser("convert", help="convert a published checkpoint", allow_abbrev=False)
    convert.add_argument("family", help="whose layout the checkpoint has; --list shows all")
    convert.add_argument("source", help="file, folder, Hub id, or Hub id with a file: org/name/file.pt")
    convert.add_argument("--output_dir", required=True, help="folder to write: a new one, or a tokenizer's")
    convert.add_argument(
        "--config", help="the project's settings; by default the YAML or JSON beside the file"
    )
    convert.add_argument("--weights", choices=("raw", "ema"), help="which weights, where a file has both")
    convert.add_argument("--levels", type=int, nargs="+", help="levels of FSQ, where the file does not tell")
    convert.add_argument(
        "--scales", type=int, nargs="+", help="sides of a multi-scale tokenizer's token maps"
    )
    convert.add_argument(
        "--image_size", type=int, help="height and width in pixels; by default the project's"
    )
    convert.add_argument("--push_to_hub", metavar="ORG/NAME", help="repository to upload the tokenizer to")
    convert.add_argument(
        "--list", action=_ListPublished, nargs=0, help="show the published checkpoints and exit"
    )
    convert.set_defaults(run=_convert)

    from .extraction import arguments

    for name, text in (
        ("extract", "write the tokens of a dataset"),
        ("verify", "look for damage in a folder of tokens"),
        ("export", "write tokens in another project's layout"),
        ("decode", "turn tokens back into pictures"),
    ):
        command = commands.add_parser(name, help=text, allow_abbrev=False)
        getattr(arguments, f"add_{name}_flags")(command)
        command.set_defaults(run=_lines_of(getattr(arguments, f"run_{name}")))

    quickstart = commands.add_parser(
        "quickstart", help="train a small tokenizer on embedded photographs and use it"
    )
    quickstart.add_argument(
        "--output_dir", default="outputs/quickstart", help="folder for everything it makes"
    )
    quickstart.set_defaults(run=_quickstart)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; what goes wrong by the user's doing is one line and the exit status 1.

    Args:
        arguments: The words after `vistok`; by default those of the process.
    """
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
    try:
        flags.run(flags, dotted)
    except KeyboardInterrupt:
        print("Interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_ours(error):
            raise  # a defect: its traceback is what a report needs
        message = " ".join(str(error).split())
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            message += "; make room and run the same command again"
            if flags.command == "train":
                message += ", with --resume_from_checkpoint latest to go on"
        print(f"vistok {flags.command}: {message}", file=sys.stderr)
        return 1
    return 0


def _is_ours(error: BaseException) -> bool:
    return type(error).__module__.startswith("vistok.")


def _train(flags: argparse.Namespace, dotted: list[str]) -> None:
    from .training import Trainer
    from .training.arguments import training_config

    settings = {name: value for name, value in vars(flags).items() if name not in ("command", "run")}
    config = training_config(settings, dotted)
    Trainer(config).train()
    print(f"Wrote the tokenizer to {config.output_dir}; VQModelHF.from_pretrained loads it from there")


def _evaluate(flags: argparse.Namespace, dotted: list[str]) -> None:
    import json
    from pathlib import Path

    from accelerate import Accelerator

    from .data import open_dataset
    from .evaluation import evaluate
    from .modeling import VQModelHF
    from .training.checkpoints import publish

    folder = Path(flags.output_dir) if flags.output_dir is not None else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator()
    if accelerator.num_processes > 1:
        raise ValueError(f"Evaluation takes one process in this version, got {accelerator.num_processes}")
    source = open_dataset(
        flags.dataset_name,
        split=flags.split,
        config_name=flags.dataset_config_name,
        revision=flags.dataset_revision,
        image_column=flags.image_column,
    )
    results = evaluate(
        VQModelHF.from_pretrained(flags.model).to(accelerator.device),
        source,
        resolution=flags.resolution,
        batch_size=flags.batch_size,
        num_workers=flags.num_workers,
        limit=flags.max_samples,
        on_error=flags.on_unreadable,
    )
    text = json.dumps(results, indent=2)
    if folder is None:
        print(text)
        return
    publish(folder, lambda path: (path / "eval_results.json").write_text(text + "\n", encoding="utf-8"))
    print(f"Wrote {folder / 'eval_results.json'}")


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
