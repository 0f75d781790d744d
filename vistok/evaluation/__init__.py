"""Evaluation of tokenizers: metrics, and the protocol that says how each number came about."""

from .lpips import LPIPS as LPIPS
from .measures import METRICS as METRICS
from .measures import Measures as Measures
from .measures import load_measures as load_measures
from .metrics import l1 as l1
from .metrics import ms_ssim as ms_ssim
from .metrics import mse as mse
from .metrics import psnr as psnr
from .metrics import ssim as ssim
from .protocol import evaluate as evaluate
from .usage import CodebookUsage as CodebookUsage
from .usage import usage as usage
