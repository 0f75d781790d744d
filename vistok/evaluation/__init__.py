"""Evaluation of tokenizers: metrics, and the protocol that says how each number came about."""

from .metrics import CodebookUsage as CodebookUsage
from .metrics import psnr as psnr
from .metrics import ssim as ssim
from .metrics import usage as usage
from .protocol import evaluate as evaluate
