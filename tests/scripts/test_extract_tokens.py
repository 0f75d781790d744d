"""What README.md shows of `scripts/extract_tokens.py` and of `vistok extract` can be run line by line."""

import argparse
import re
import shlex
from pathlib import Path

from vistok.extraction.arguments import add_extract_flags

README = (Path(__file__).parents[2] / "README.md").read_text()
EXTRACTION = re.compile(
    r"^(?:vistok extract|accelerate launch scripts/extract_tokens\.py) (.*)", re.MULTILINE
)


def test_commands_that_share_a_folder_are_of_one_plan():
    parser = argparse.ArgumentParser()
    add_extract_flags(parser)
    found = 0
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL):
        plans = {}
        for command in EXTRACTION.findall(block):
            words = shlex.split(command.replace("$SLURM_ARRAY_TASK_ID", "7"))
            plan = {**vars(parser.parse_args(words)), "worker_index": None, "num_workers": None}
            assert plan == plans.setdefault(plan["output_dir"], plan)
            found += 1
    assert found > 3, "is the pattern of this test still right?"
