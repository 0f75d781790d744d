"""Which column of a dataset holds the pictures, and which the labels."""

from .sources import DatasetError

IMAGE_KEYS = (
    "jpg",
    "jpeg",
    "png",
    "webp",
    "image",
    "img",
)  # names of columns of pictures without Image feature
LABEL_KEYS = ("label", "labels", "cls")  # integer columns that are taken for labels where no ClassLabel is


def image_column(columns: dict[str, object], wanted: str | None, dataset: str) -> str:
    """Return the column that holds pictures.

    That is the first one with the feature `Image`, else a binary or struct{bytes, path} one with a usual
    name, else the first one of these.

    Args:
        columns: `datasets` features by name.
        wanted: the column the user asks for.
        dataset: its name, for messages.

    Raises:
        DatasetError: there is none, or the wanted one is not there or holds no pictures.
    """
    import datasets

    listed = f"its columns are: {', '.join(columns) or 'none'}"
    typed = [column for column, feature in columns.items() if isinstance(feature, datasets.Image)]
    untyped = [column for column, feature in columns.items() if _may_hold_bytes(feature)]
    if wanted is not None:
        if wanted not in columns:
            raise DatasetError(
                f"dataset {dataset!r} has no column {wanted!r}, {listed}; check --image_column"
            )
        if wanted not in typed + untyped:
            raise DatasetError(
                f"column {wanted!r} of dataset {dataset!r} holds no pictures, {listed}; check --image_column"
            )
        return wanted
    named = [column for column in untyped if column.rsplit(".", 1)[-1].lower() in IMAGE_KEYS]
    found = typed + named + untyped
    if not found:
        raise DatasetError(f"dataset {dataset!r} has no image column, {listed}; give a dataset with pictures")
    return found[0]


def label_column(columns: dict[str, object]) -> str | None:
    """Return the first ClassLabel column, else an integer column with a usual name, else None."""
    import datasets

    for column, feature in columns.items():
        if isinstance(feature, datasets.ClassLabel):
            return column
    for column in LABEL_KEYS:
        if "int" in str(getattr(columns.get(column), "dtype", "")):
            return column
    return None


def _may_hold_bytes(feature: object) -> bool:
    """Tell whether a feature is binary or struct{bytes, path}: pictures written without the Image feature."""
    if isinstance(feature, dict):
        return set(feature) == {"bytes", "path"}
    return getattr(feature, "dtype", None) in ("binary", "large_binary")
