"""`python -m vistok.extraction verify FOLDER`: what `vistok verify` does."""

import argparse
import sys

from .arguments import add_verify_flags, run_verify

parser = argparse.ArgumentParser(prog="python -m vistok.extraction")
add_verify_flags(parser.add_subparsers(required=True).add_parser("verify", help="look for damage"))
try:
    for line in run_verify(parser.parse_args()):
        sys.stdout.write(f"{line}\n")
except ValueError as error:
    sys.stderr.write(f"{error}\n")
    raise SystemExit(1) from None
