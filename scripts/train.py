"""`vistok train` for `accelerate launch scripts/train.py RECIPE ...`."""

import sys

from vistok.cli import main

sys.exit(main(["train", *sys.argv[1:]]))
