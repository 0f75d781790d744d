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
_OF_MODELS = (  # flags of `vistok evaluate` that say nothing of pictures in folders
    "dataset_name",
    "dataset_config_name",
    "dataset_revision",
    "split",
    "image_column",
    "resolution",
    "update_card",
)


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

    evaluate = commands.add_parser("evaluate", help="measure tokenizers on a split", allow_abbrev=False)
    evaluate.add_argument(
        "--model",
        nargs="+",
        action="append",
        metavar="FOLDER_OR_ID",
        help="folder or Hub id of a tokenizer; once for each tokenizer, with all seeds of one together",
    )
    evaluate.add_argument("--reconstructions", metavar="FOLDER", help="instead: what any tokenizer has made")
    evaluate.add_argument("--references", metavar="FOLDER", help="the originals, of the same names")
    evaluate.add_argument("--dataset_name", help="Hub id, folder, Parquet files, tars or samples")
    evaluate.add_argument("--dataset_config_name", help="the dataset's configuration on the Hub")
    evaluate.add_argument("--dataset_revision", help="branch, tag or commit of the dataset")
    evaluate.add_argument("--split", help="split to evaluate (default: validation)")
    evaluate.add_argument("--image_column", help="column of the pictures; by default the first image column")
    evaluate.add_argument("--resolution", type=int, help="height and width in pixels; by default the model's")
    evaluate.add_argument(
        "--crop",
        choices=("center_crop", "adm_crop", "celeba_crop"),
        default="center_crop",
        help="how pictures are cut to size; adm_crop is that of LlamaGen's and OptVQ's figures",
    )
    evaluate.add_argument(
        "--metrics",
        nargs="+",
        metavar="METRIC",
        help="of l1, mse, psnr, ssim, ms_ssim, lpips_vgg, lpips_alex, rfid, kid, inception_score; by default "
        "all whose weights are there",
    )
    evaluate.add_argument("--inception_weights", metavar="FILE", help="pt_inception-2015-12-05-6726825d.pth")
    evaluate.add_argument(
        "--lpips_vgg_weights", metavar="FILE_OR_ID", help="torchvision's VGG16; by default from the Hub"
    )
    evaluate.add_argument("--lpips_alex_weights", metavar="FILE_OR_ID", help="torchvision's AlexNet")
    evaluate.add_argument("--batch_size", type=int, default=64, help="pictures at a time (default: 64)")
    evaluate.add_argument(
        "--num_workers", type=int, default=0, help="processes that decode pictures (default: 0)"
    )
    evaluate.add_argument("--max_samples", type=int, help="evaluate the first so many pictures only")
    evaluate.add_argument("--expected_samples", type=int, help="how many pictures there must be, exactly")
    evaluate.add_argument(
        "--on_unreadable",
        choices=("error", "skip"),
        default="error",
        help="what to do with an unreadable picture",
    )
    evaluate.add_argument(
        "--output_dir",
        help="folder for eval_results.json, sheet, tables and plots; by default metrics are only shown",
    )
    evaluate.add_argument(
        "--update_card", action="store_true", help="put the results into the model card, of a local folder"
    )
    evaluate.set_defaults(run=_evaluate)

    compare = commands.add_parser("compare", help="tables and plots of results", allow_abbrev=False)
    compare.add_argument(
        "results",
        nargs="+",
        metavar="RESULTS",
        help="eval_results.json of vistok evaluate or train, or folders that hold one",
    )
    compare.add_argument("--output_dir", required=True, help="folder for the tables and plots")
    compare.set_defaults(run=_compare)

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

    demo = commands.add_parser("demo", help="see tokenizers work, in the browser", allow_abbrev=False)
    demo.add_argument(
        "--model",
        action="append",
        metavar="MODEL",
        help="folder or Hub id of a tokenizer, once for each; default: the one of `vistok quickstart`",
    )
    demo.add_argument("--server_name", help="address to listen on (default: 127.0.0.1, this machine alone)")
    demo.add_argument("--server_port", type=int, help="port to listen on (default: the first free from 7860)")
    demo.set_defaults(run=_demo)

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
    from pathlib import Path

    from accelerate import Accelerator

    from .data import open_dataset
    from .evaluation.command import Evaluation
    from .evaluation.folders import open_folders
    from .evaluation.measures import load_measures
    from .evaluation.protocol import check_positive

    of_folders = flags.reconstructions is not None
    for name in ("model", "dataset_name") if not of_folders else ("references",):
        if getattr(flags, name) is None:
            raise ValueError(f"--{name} is missing; or measure pictures: --reconstructions and --references")
    if of_folders and flags.model is not None:
        raise ValueError("--model and --reconstructions exclude each other: evaluate one after the other")
    other = _OF_MODELS if of_folders else ("references",)
    for name in other:
        if getattr(flags, name) not in (None, False):
            given = "--reconstructions" if of_folders else "--model"
            raise ValueError(f"--{name} says nothing with {given}: leave it out")
    for name in ("resolution", "max_samples", "expected_samples", "batch_size"):
        check_positive(**{f"--{name}": getattr(flags, name)})
    folder = Path(flags.output_dir) if flags.output_dir is not None else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator()
    weights = {"vgg": flags.lpips_vgg_weights, "alex": flags.lpips_alex_weights}
    measures = load_measures(
        flags.metrics,
        inception_weights=flags.inception_weights,
        lpips_weights={trunk: file for trunk, file in weights.items() if file is not None},
        device=accelerator.device,
    )
    evaluation = Evaluation(
        measures,
        asked=flags.metrics,
        output_dir=folder,
        say=print,
        crop=flags.crop,
        batch_size=flags.batch_size,
        num_workers=flags.num_workers,
        limit=flags.max_samples,
        expected=flags.expected_samples,
        on_error=flags.on_unreadable,
    )
    if of_folders:
        evaluation.evaluate_folders(*open_folders(flags.references, flags.reconstructions))
    else:
        source = open_dataset(
            flags.dataset_name,
            split=flags.split or "validation",
            config_name=flags.dataset_config_name,
            revision=flags.dataset_revision,
            image_column=flags.image_column,
        )
        evaluation.evaluate_models(
            flags.model,
            source,
            resolution=flags.resolution,
            device=accelerator.device,
            card=flags.update_card,
        )
    accelerator.end_training()


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
