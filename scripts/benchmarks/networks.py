"""vistok's networks beside the same layers computed plainly: time and memory of one picture.

    python scripts/benchmarks/networks.py [--case decode] [--device cuda] [--rounds 5] [--json rows.json]

A process for each case, one thread, candidates interleaved, medians. Before anything is timed the results
must agree:
1e-4 of the largest value in float32, 5e-2 in bfloat16.
"""

import math

import torch
from cases_vqgan import vq_16
from harness import main, with_goal

CASES = {
    "VQ-16 256x256 encode": with_goal(lambda d: vq_16("encode", torch.float32, d), 0.85, math.inf),
    "VQ-16 256x256 decode": with_goal(lambda d: vq_16("decode", torch.float32, d), 0.75, math.inf),
    "VQ-16 256x256 encode, bfloat16": with_goal(lambda d: vq_16("encode", torch.bfloat16, d), 0.45, math.inf),
    "VQ-16 256x256 decode, bfloat16": with_goal(lambda d: vq_16("decode", torch.bfloat16, d), 0.40, math.inf),
}

if __name__ == "__main__":
    main(CASES, __file__, __doc__, processes=True)
