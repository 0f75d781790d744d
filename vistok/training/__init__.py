"""Training of tokenizers; never imported by `import vistok`."""

from .arguments import load_recipe as load_recipe
from .arguments import recipe_names as recipe_names
from .checkpoints import CheckpointError as CheckpointError
from .config import TrainingConfig as TrainingConfig
from .loop import Trainer as Trainer
