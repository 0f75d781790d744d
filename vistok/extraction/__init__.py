"""Datasets of tokens that can be trusted: a plan, shards that appear whole, readers that check, exporters."""

from .card import push_tokens as push_tokens
from .decoding import decode_tokens as decode_tokens
from .exporters import export as export
from .extract import extract as extract
from .layout import merge_tokens as merge_tokens
from .layout import split_tokens as split_tokens
from .manifest import IncompleteError as IncompleteError
from .plan import PlanError as PlanError
from .reader import TokenDataset as TokenDataset
from .reader import TokenStream as TokenStream
from .reader import load_tokens as load_tokens
from .shard_reading import ShardError as ShardError
from .verify import verify as verify
from .views import Views as Views
