"""Opens a checkpoint of `torch.save` where it can do no harm: `reading.py` runs this package as a process.

`torch.load(weights_only=True)` runs no code of the file. It has been broken out of before (CVE-2025-32434,
CVE-2026-24747), and a small file can ask for terabytes: so that process also gets no secrets, refuses to
start programs, to reach the network and to write, and has a limit on its memory (on Linux), output and time.

    python -m checkpoint_sandbox CHECKPOINT WEIGHTS

writes the tensors to WEIGHTS, a safetensors file, or to stdout the one line that says why not. It imports
nothing of vistok, nor does vistok import it: it starts as fast as torch does.
"""
