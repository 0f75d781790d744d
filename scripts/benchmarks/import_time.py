"""What `import vistok` costs over the imports of torch and transformers that its users have anyway.

    .venv/bin/python scripts/benchmarks/import_time.py [ROUNDS]

Each round starts both in a fresh process, one after the other, so that a busy machine slows both alike;
there, read the processor's time. The goal is at most 0.1 s.
"""

import statistics
import subprocess
import sys

WITHOUT = "import torch; from transformers import PreTrainedModel, AutoModel, AutoImageProcessor"
WITH = f"{WITHOUT}; import vistok"


def seconds(imports: str) -> list[float]:
    """Wall and processor seconds that the imports take, without the start of the interpreter."""
    now = "[time.perf_counter(), time.process_time()]"
    code = (
        f"import time; start = {now}; {imports}; print(*(b - a for a, b in zip(start, {now}, strict=True)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [float(number) for number in result.stdout.split()]


def main(rounds: int) -> None:
    """Prints the medians of so many rounds and their differences."""
    seconds(WITH)  # the first one fills the disk cache
    without, with_vistok = zip(*((seconds(WITHOUT), seconds(WITH)) for _ in range(rounds)), strict=True)
    for clock, name in enumerate(("wall", "processor")):
        before, after = (statistics.median(run[clock] for run in runs) for runs in (without, with_vistok))
        print(f"{name}: {before:.3f} s, with vistok {after:.3f} s: {after - before:+.3f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
