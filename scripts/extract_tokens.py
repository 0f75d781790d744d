"""`vistok extract` for `accelerate launch scripts/extract_tokens.py ...`."""

import sys

from vistok.cli import main

sys.exit(main(["extract", *sys.argv[1:]]))
