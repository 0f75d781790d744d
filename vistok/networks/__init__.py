"""The networks, one architecture a file: a new one is one file and one line here."""

from .base import DECODERS as DECODERS
from .base import ENCODERS as ENCODERS
from .base import Decoder as Decoder
from .base import Encoder as Encoder
from .base import build_decoder as build_decoder
from .base import build_encoder as build_encoder
from .base import takes_quantized as takes_quantized
from .magvit2 import MAGVIT2Config as MAGVIT2Config
from .maskgit import MaskGITConfig as MaskGITConfig
from .simple_cnn import SimpleCNNConfig as SimpleCNNConfig
from .strided_cnn import StridedCNNConfig as StridedCNNConfig
from .titok import TiTokConfig as TiTokConfig
from .vit import ViTConfig as ViTConfig
from .vqgan import VQGANConfig as VQGANConfig
