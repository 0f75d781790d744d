"""vistok turns pictures into tokens and tokens into pictures."""

__version__ = "0.1.0"

from . import foreign_folders as foreign_folders
from .configuration import NetworkConfig as NetworkConfig
from .configuration import VisualTokenizerConfig as VisualTokenizerConfig
from .image_decoding import UnreadableImageError as UnreadableImageError
from .image_decoding import decode_image as decode_image
from .image_processing import VistokImageProcessor as VistokImageProcessor
from .model_card import write_model_card as write_model_card
from .modeling import TokenizerOutput as TokenizerOutput
from .modeling import VQModelHF as VQModelHF
from .networks import MAGVIT2Config as MAGVIT2Config
from .networks import MaskGITConfig as MaskGITConfig
from .networks import SimpleCNNConfig as SimpleCNNConfig
from .networks import StridedCNNConfig as StridedCNNConfig
from .networks import TiTokConfig as TiTokConfig
from .networks import ViTConfig as ViTConfig
from .networks import VQGANConfig as VQGANConfig
from .quantizers import BSQConfig as BSQConfig
from .quantizers import ContinuousConfig as ContinuousConfig
from .quantizers import EMAVQConfig as EMAVQConfig
from .quantizers import FSQConfig as FSQConfig
from .quantizers import GumbelVQConfig as GumbelVQConfig
from .quantizers import IBQConfig as IBQConfig
from .quantizers import LFQConfig as LFQConfig
from .quantizers import MultiScaleVQConfig as MultiScaleVQConfig
from .quantizers import OptVQConfig as OptVQConfig
from .quantizers import Quantizer as Quantizer
from .quantizers import QuantizerOutput as QuantizerOutput
from .quantizers import SFSQConfig as SFSQConfig
from .quantizers import SimVQConfig as SimVQConfig
from .quantizers import VQConfig as VQConfig
from .visualization import draw_sheet as draw_sheet
from .visualization import draw_tokens as draw_tokens
