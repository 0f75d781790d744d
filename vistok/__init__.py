"""vistok turns pictures into tokens and tokens into pictures."""

__version__ = "0.1.0"

from .configuration import NetworkConfig as NetworkConfig
from .configuration import VisualTokenizerConfig as VisualTokenizerConfig
from .image_decoding import UnreadableImageError as UnreadableImageError
from .image_decoding import decode_image as decode_image
from .image_processing import VistokImageProcessor as VistokImageProcessor
from .model_card import write_model_card as write_model_card
from .modeling import TokenizerOutput as TokenizerOutput
from .modeling import VQModelHF as VQModelHF
from .networks import SimpleCNNConfig as SimpleCNNConfig
from .networks import StridedCNNConfig as StridedCNNConfig
from .quantizers import BSQConfig as BSQConfig
from .quantizers import ContinuousConfig as ContinuousConfig
from .quantizers import EMAVQConfig as EMAVQConfig
from .quantizers import FSQConfig as FSQConfig
from .quantizers import GumbelVQConfig as GumbelVQConfig
from .quantizers import IBQConfig as IBQConfig
from .quantizers import LFQConfig as LFQConfig
from .quantizers import OptVQConfig as OptVQConfig
from .quantizers import Quantizer as Quantizer
from .quantizers import QuantizerOutput as QuantizerOutput
from .quantizers import SFSQConfig as SFSQConfig
from .quantizers import SimVQConfig as SimVQConfig
from .quantizers import VQConfig as VQConfig
from .visualization import draw_sheet as draw_sheet
from .visualization import draw_tokens as draw_tokens
