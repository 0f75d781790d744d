"""Pictures to train and test on: sources by name, crops by name, exact streams.

`import vistok` does not import this package, and this package imports `datasets` only when a dataset is
opened.
"""

from .opening import open_dataset
from .order import ShardedOrder
from .ordered import ordered_batches, pictures_at
from .sources import DatasetError, IndexedSource, Picture, ShardedSource, Source
from .stream import PictureStream, check_layout, to_pixel_values
from .transforms import CROPS, PictureTransform

__all__ = [
    "CROPS",
    "DatasetError",
    "IndexedSource",
    "Picture",
    "PictureStream",
    "PictureTransform",
    "ShardedOrder",
    "ShardedSource",
    "Source",
    "check_layout",
    "open_dataset",
    "ordered_batches",
    "pictures_at",
    "to_pixel_values",
]
