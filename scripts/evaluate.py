"""`vistok evaluate` for `accelerate launch scripts/evaluate.py ...`."""

import sys

from vistok.cli import main

sys.exit(main(["evaluate", *sys.argv[1:]]))
