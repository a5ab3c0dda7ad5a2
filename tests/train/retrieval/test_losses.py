"""Losses of retrieval: sentence-transformers' values and gradients, and what the blocks keep."""

import pytest

from modernbert_jax import UserError
from modernbert_jax.train.retrieval import losses


@pytest.mark.parametrize("kind", losses.LOSSES.values(), ids=losses.LOSSES)
def test_losses_check_what_they_need(kind):
    with pytest.raises(UserError, match=f"{kind.name} has no option 'margni'"):
        kind.check(3, 1, {"margni": 1.0})
