import numpy as np
import pytest

from vistok.demo.assignments import other_assignments
from vistok.demo.reconstruction import reconstruct


def test_the_other_assignment_has_tokens_of_the_same_shape(tokenizers, photograph):
    shown = reconstruct(tokenizers["transport"], photograph, 128)
    found = other_assignments(tokenizers["transport"], shown)
    assert list(found) == ["optimal transport"]
    tokens = found["optimal transport"]
    assert tokens.shape == shown.tokens.shape
    assert (tokens != shown.tokens).mean() > 0.01
    # Transport shares latents out among the entries: it uses at least as many.
    assert len(np.unique(tokens)) >= len(np.unique(shown.tokens))


@pytest.mark.parametrize("name", ["grid", "residual", "continuous"])
def test_most_methods_offer_no_other(tokenizers, photograph, name):
    assert other_assignments(tokenizers[name], reconstruct(tokenizers[name], photograph, 32)) == {}
