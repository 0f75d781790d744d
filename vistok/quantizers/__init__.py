"""The quantizers, one method a file: a new one is one file and one line here."""

from .base import QUANTIZERS as QUANTIZERS
from .base import Quantizer as Quantizer
from .base import QuantizerOutput as QuantizerOutput
from .base import straight_through as straight_through
from .build import build_quantizer as build_quantizer
from .continuous import Continuous as Continuous
from .continuous import ContinuousConfig as ContinuousConfig
from .fsq import FSQ as FSQ
from .fsq import FSQConfig as FSQConfig
from .product import Product as Product
from .residual import Residual as Residual
from .vq import VQ as VQ
from .vq import VQConfig as VQConfig
