"""Datasets of tokens that can be trusted: a plan, shards that appear whole, readers that check, exporters."""

from .extract import extract as extract
from .views import Views as Views
