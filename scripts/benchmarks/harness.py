"""Times and memory to be trusted on a shared machine: interleaved rounds, a child process for each peak."""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from vistok.memory import keep_freed_memory

# Every block above 64 kB is mapped alone, so that freed memory leaves the process and a peak is a peak. That
# makes small operations ten times slower: for the memory of a child, never for times.
_MEMORY_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536"}
_SAMPLE_SECONDS = 0.02
_CHILD_TIMEOUT_SECONDS = 600


@dataclass
class Case:
    """One comparison.

    Attributes:
        candidates: Name -> one step of it. "ours" comes first; the first other one is what ratios are of.
        gate: What must be equal -> (largest difference, tolerance); worked out before anything is timed.
        floor: Name and step of the least work that the hardware could do.
        time_goal: The largest ratio of the medians, ours over the peer's.
        memory_goal: The largest peak extra memory of ours: a ratio (below 1) or MB; inf is measured
            without a goal, None is not measured.
    """

    candidates: dict[str, Callable[[], object]]
    gate: dict[str, tuple[float, float]] = field(default_factory=dict)
    floor: tuple[str, Callable[[], object]] | None = None
    time_goal: float | None = None
    memory_goal: float | None = None

    @property
    def failures(self) -> list[str]:
        """What is not equal."""
        return [
            f"{name} differs by {difference:.3g} (allowed {tolerance:.3g})"
            for name, (difference, tolerance) in self.gate.items()
            if not difference <= tolerance
        ]


def interleave(steps: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds per step, one sample a round; every round begins with another candidate.

    Args:
        steps: Name -> what to time.
        rounds: Number of samples of each.
        device: `"cpu"` or `"cuda"`; on a GPU, events between two synchronizations.
    """
    repeats = {}
    for name, step in steps.items():
        step()
        repeats[name] = max(1, round(_SAMPLE_SECONDS / max(_seconds(step, 1, device), 1e-7)))
    samples = {name: [] for name in steps}
    names = list(steps)
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            samples[name].append(_seconds(steps[name], repeats[name], device))
    return samples


def _seconds(step: Callable[[], object], repeats: int, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(repeats):
            step()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3 / repeats
    begin = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - begin) / repeats


def peak_bytes(step: Callable[[], object], device: str) -> int | None:
    """The largest memory during one step over that before it; None where it cannot be measured."""
    step()  # one-time allocations of libraries are not the step's
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        rest = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - rest
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    rest = _status_bytes("VmRSS")
    step()
    return max(0, _status_bytes("VmHWM") - rest)


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no {name} in /proc/self/status")


def peak_in_child(program: str, case: str, candidate: str, device: str) -> int | None:
    """`peak_bytes` of one candidate in a process of its own, which runs `program --peak CASE CANDIDATE`."""
    command = [sys.executable, program, "--peak", case, candidate, "--device", device]
    environment = {**os.environ, **_MEMORY_ENVIRONMENT}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=_CHILD_TIMEOUT_SECONDS
    )
    if done.returncode:
        print(f"  memory of {candidate}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def report(
    name: str, case: Case, program: str, rounds: int, device: str, peer_missing: str | None
) -> list[dict]:
    """Gates, times, measures and prints one case; its rows as dictionaries."""
    print(f"\n{name}")
    if case.failures:
        print(f"  NOT EQUAL, not timed: {'; '.join(case.failures)}")
        return [{"case": name, "failures": case.failures}]
    if case.gate:
        print(
            "  equal:", ", ".join(f"{what} ({difference:.2g})" for what, (difference, _) in case.gate.items())
        )
    steps = dict(case.candidates)
    if case.floor:
        steps[f"floor: {case.floor[0]}"] = case.floor[1]
    load = os.getloadavg()[0]
    samples = interleave(steps, rounds, device)
    peaks = {}
    if case.memory_goal is not None:
        peaks = {candidate: peak_in_child(program, name, candidate, device) for candidate in case.candidates}
    others = [candidate for candidate in case.candidates if candidate != "ours"]
    base = statistics.median(samples[others[0]]) if others else None
    print(
        f"  {'':36}{'median ms':>11}{'min ms':>10}{'ratio':>8}{'spread':>8}{'peak MB':>9}   load {load:.1f}"
    )
    rows = []
    for candidate, seconds in samples.items():
        median, low = statistics.median(seconds), min(seconds)
        quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [median] * 3
        ratio = median / base if base else None
        peak = peaks.get(candidate)
        goals = (
            _goals(case, ratio, peak, peaks.get(others[0]) if others else None) if candidate == "ours" else ""
        )
        print(
            f"  {candidate:36}{median * 1e3:11.3f}{low * 1e3:10.3f}"
            f"{f'{ratio:.3f}' if ratio else '-':>8}{(quartiles[2] - quartiles[0]) / median:8.0%}"
            f"{f'{peak / 1e6:.1f}' if peak is not None else '':>9}   {goals}"
        )
        rows.append(
            {
                "case": name,
                "candidate": candidate,
                "median_seconds": median,
                "min_seconds": low,
                "ratio": ratio,
                "peak_bytes": peak,
                "time_goal": case.time_goal if candidate == "ours" else None,
                "memory_goal": case.memory_goal
                if candidate == "ours" and case.memory_goal != math.inf
                else None,
                "load_average": load,
            }
        )
    if not others:
        print(f"  {peer_missing or 'no peer'}: not installed")
    return rows


def _goals(case: Case, ratio: float | None, peak: int | None, peer_peak: int | None) -> str:
    texts = []
    if case.time_goal and ratio:
        texts.append(f"time goal {case.time_goal:.2f}: {'reached' if ratio <= case.time_goal else 'MISSED'}")
    if case.memory_goal and case.memory_goal < math.inf and peak is not None:
        if case.memory_goal >= 1:
            reached, value = peak / 1e6 <= case.memory_goal, f"{case.memory_goal:.0f} MB"
        elif peer_peak:
            reached, value = peak / peer_peak <= case.memory_goal, f"{case.memory_goal:.2f}x"
            texts.append(f"memory {peak / peer_peak:.2f}x")
        else:
            return ", ".join(texts)
        texts.append(f"memory goal {value}: {'reached' if reached else 'MISSED'}")
    return ", ".join(texts)


def with_goal(
    build: Callable[[str], Case], time: float | None, memory: float | None
) -> Callable[[str], Case]:
    """A function from a device to a case, with the `time_goal` and `memory_goal` of the case."""

    def case(device: str) -> Case:
        built = build(device)
        built.time_goal, built.memory_goal = time, memory
        return built

    return case


def main(
    cases: dict[str, Callable[[str], Case]],
    program: str,
    description: str,
    peer: str = "",
    processes: bool = False,
    keep_memory: bool = False,
) -> None:
    """The command of a benchmark: runs the cases that were asked for.

    Args:
        cases: Name -> function from a device to the case.
        program: The file of the command, to be run again for a peak of memory.
        description: For `--help`.
        peer: The peer's name and version, where there is one.
        processes: Whether each case has a process of its own. Where tensors are so large that the allocator
            maps each anew, what an earlier case left in the heap spares a later one that.
        keep_memory: Whether freed memory stays with the process, as in `vistok train`, while times are taken.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=15, help="samples of each candidate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "CANDIDATE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    if arguments.peak:
        case, candidate = arguments.peak
        print(json.dumps(peak_bytes(cases[case](arguments.device).candidates[candidate], arguments.device)))
        return
    if keep_memory:
        keep_freed_memory()
    chosen = {name: build for name, build in cases.items() if arguments.case in name}
    chosen = {arguments.case: cases[arguments.case]} if arguments.case in cases else chosen
    if not chosen:
        parser.error(f"no case contains {arguments.case!r}; cases: {', '.join(cases)}")
    versions = [f"torch {torch.__version__}", *([peer] if peer else []), arguments.device]
    print(f"{', '.join(versions)}, {arguments.threads} thread(s)")
    print(f"{arguments.rounds} rounds, load average {', '.join(f'{load:.1f}' for load in os.getloadavg())}")
    rows = []
    for name, build in chosen.items():
        if processes and len(chosen) > 1:
            rows += _in_process(name, program, arguments)
            continue
        case = build(arguments.device)
        rows += report(name, case, program, arguments.rounds, arguments.device, peer.split(" ")[0] or None)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def _in_process(name: str, program: str, arguments: argparse.Namespace) -> list[dict]:
    flags = {name: getattr(arguments, name) for name in ("device", "rounds", "threads")}
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, program, "--case", name, "--json", file.name]
        command += [word for flag, value in flags.items() for word in (f"--{flag}", str(value))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print("\n" + done.stdout.partition("\n\n")[2].rstrip())
        return json.loads(Path(file.name).read_text())
