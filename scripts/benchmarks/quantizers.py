"""vistok's quantizers beside vector-quantize-pytorch's: the same maths, time and memory.

    pip install vector-quantize-pytorch==1.32.0
    python scripts/benchmarks/quantizers.py [--case fsq] [--device cuda] [--rounds 15] [--json rows.json]

One process, one thread, candidates interleaved. Before anything is timed, tokens, quantized vectors, losses
and gradients must be equal; a case that is not prints no time. Ratios are of medians; a peak is the extra
memory of one step, its gradients included.
"""

import importlib.metadata
import math

from cases_codebook import ema, ema_update, simvq, vq
from cases_implicit import fsq, lfq
from cases_transport import cross_entropy, sinkhorn
from common import HAS_PEER, PEER
from harness import main, with_goal

SMALL, LARGE = [8, 5, 5, 5], [8, 8, 8, 5, 5, 5]
CASES = {
    "fsq 8555 forward": with_goal(lambda d: fsq("forward", SMALL, d), 0.25, None),
    "fsq 8555 train": with_goal(lambda d: fsq("train", SMALL, d), 0.30, 0.5),
    "fsq 8555 encode": with_goal(lambda d: fsq("encode", SMALL, d), 0.20, None),
    "fsq 8555 lookup": with_goal(lambda d: fsq("lookup", SMALL, d), None, None),
    "fsq 8555 index": with_goal(lambda d: fsq("index", SMALL, d), None, None),
    "fsq 888555 forward": with_goal(lambda d: fsq("forward", LARGE, d), None, None),
    "fsq 888555 train": with_goal(lambda d: fsq("train", LARGE, d), None, math.inf),
    "fsq 888555 encode": with_goal(lambda d: fsq("encode", LARGE, d), None, None),
    "lfq 10 bits train, 8192 tokens": with_goal(lambda d: lfq(10, 32, 16, d), 0.06, math.inf),
    "lfq 14 bits train, 2048 tokens": with_goal(lambda d: lfq(14, 8, 16, d), 0.02, math.inf),
    "lfq 18 bits train, 256 tokens": with_goal(lambda d: lfq(18, 1, 16, d), 0.01, math.inf),
    "lfq 18 bits train, 8192 tokens": with_goal(lambda d: lfq(18, 32, 16, d), None, 200),
    "vq 16384x8 normalized train, 8192 tokens": with_goal(lambda d: vq(16384, 8, 32, 16, True, d), 0.10, 30),
    "vq 1024x256 train, 8192 tokens": with_goal(lambda d: vq(1024, 256, 32, 16, False, d), None, math.inf),
    "vq 16384x256 train, 2048 tokens": with_goal(lambda d: vq(16384, 256, 8, 16, False, d), 0.60, 1 / 40),
    "vq 65536x8 train, 2048 tokens": with_goal(lambda d: vq(65536, 8, 8, 16, False, d), 0.10, 1 / 40),
    "vq 65536x8 normalized train, 2048 tokens": with_goal(
        lambda d: vq(65536, 8, 8, 16, True, d), 0.10, 1 / 40
    ),
    "ema 8192x64 train, 4096 tokens": with_goal(lambda d: ema(8192, 64, 16, 16, d), 0.20, math.inf),
    "ema 8192x64 update, 4096 tokens": with_goal(lambda d: ema_update(8192, 64, 4096, d), 0.05, math.inf),
    "ema 16384x256 update, 2048 tokens": with_goal(lambda d: ema_update(16384, 256, 2048, d), 0.05, math.inf),
    "simvq 16384x128 train, 1024 tokens": with_goal(lambda d: simvq(16384, 128, 4, 16, d), 0.50, math.inf),
    "sinkhorn 2048 x 16384, stored": with_goal(lambda d: sinkhorn(2048, 16384, 16, 2**29, d), 0.35, math.inf),
    "sinkhorn 2048 x 16384, no matrix": with_goal(lambda d: sinkhorn(2048, 16384, 16, 2**20, d), None, 20),
    "cross-entropy 2048 x 16384": with_goal(lambda d: cross_entropy(2048, 16384, 16, d), None, math.inf),
}


if __name__ == "__main__":
    peer = importlib.metadata.version(PEER) if HAS_PEER else "not installed"
    main(CASES, __file__, __doc__, peer=f"{PEER} {peer}")
