"""Every family of published checkpoints that vistok converts: a new one is a file and its line here."""

import difflib

from .base import Family
from .fsq_pytorch import FAMILY as FSQ_PYTORCH
from .ibq import FAMILY as IBQ
from .llamagen import FAMILY as LLAMAGEN
from .maskbit import FAMILY as MASKBIT
from .maskgit_vqgan import FAMILY as MASKGIT_VQGAN
from .open_magvit2 import FAMILY as OPEN_MAGVIT2
from .optvq import FAMILY as OPTVQ
from .simvq import FAMILY as SIMVQ
from .taming import FAMILY as TAMING
from .titok import FAMILY as TITOK
from .var import FAMILY as VAR
from .visual_tokenizer import FAMILY as VISUAL_TOKENIZER

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        OPTVQ, FSQ_PYTORCH, LLAMAGEN, TAMING, VISUAL_TOKENIZER, OPEN_MAGVIT2, IBQ, VAR, MASKGIT_VQGAN, TITOK,
        SIMVQ, MASKBIT,
    )
}  # fmt: skip


def find_family(name: str) -> Family:
    """The family of a name.

    Raises:
        ValueError: There is none; the message lists all.
    """
    if name not in FAMILIES:
        close = difflib.get_close_matches(name, FAMILIES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"There is no family {name!r}, only {', '.join(FAMILIES)}{hint}")
    return FAMILIES[name]


def published_table() -> str:
    """The published checkpoints of all families, as a table of plain text."""
    rows = [("FAMILY", "SOURCE AND FLAGS", "WHAT IT IS", "PUBLISHED FIGURES")]
    for family in FAMILIES.values():
        for published in family.published:
            source = f"{published.source} {published.options}".rstrip()
            rows.append((family.name, source, published.what, published.figures or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)] + [0]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
