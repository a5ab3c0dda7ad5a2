"""Masked-language-model targets, drawn on the device from a key."""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp

IGNORE = -100
"""Label of a position without a prediction."""


def mask_tokens(
    key: jax.Array,
    token_ids: jax.Array,
    segment_ids: jax.Array,
    *,
    rate: float,
    mask_id: int,
    vocab_size: int,
    special_ids: Sequence[int],
    unused_ids: Sequence[int] = (),
    mask_share: float = 0.8,
    random_share: float = 0.1,
    legacy: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Mask a share of the tokens, as BERT does (Devlin et al. 2019, section 3.1).

    Every token is chosen with probability `rate`, and is then predicted. It is replaced by
    `mask_id` with probability `mask_share`, by a random ordinary token with probability
    `random_share`, and is kept otherwise.

    Args:
        key: random key, e.g. `jax.random.fold_in(key, step)`.
        token_ids, segment_ids: int32 [B, T]. Padding (segment 0) is never chosen.
        rate: ModernBERT trains with 0.3 and evaluates with 0.15.
        mask_id: id of the mask token.
        vocab_size: number of ids.
        special_ids: ids that are never chosen, and never drawn as random tokens.
        unused_ids: ids that are never drawn, because they only fill up the vocabulary.
        mask_share: probability that a chosen token is replaced by the mask.
        random_share: probability that a chosen token is replaced by a random one.
        legacy: True masks as ModernBERT's research code in training. Special tokens may be chosen.
            Random tokens are drawn from all ids up to the largest one in the masked batch. Padding
            may be replaced, but is never predicted.

    Returns:
        Inputs and labels, int32 [B, T] each; labels are `IGNORE` where nothing is predicted.
    """
    share_key, random_key = jax.random.split(key)
    share = jax.random.uniform(share_key, token_ids.shape)
    real = segment_ids != 0
    hidden = share < rate * mask_share
    redrawn = ~hidden & (share < rate * (mask_share + random_share))
    if legacy:
        labelled = real & (share < rate)
        inputs = jnp.where(hidden, mask_id, token_ids)
        drawn = jax.random.randint(random_key, inputs.shape, 0, inputs.max() + 1)
        return jnp.where(redrawn, drawn, inputs), jnp.where(labelled, token_ids, IGNORE)
    can = real & ~_among(token_ids, special_ids)
    # Draw among the numbers of ordinary ids, then shift past each run of other ids.
    others = {*special_ids, *unused_ids}
    drawn = jax.random.randint(random_key, token_ids.shape, 0, vocab_size - len(others))
    for first, last in _runs(others):
        drawn += jnp.where(drawn >= first, last - first + 1, 0)
    inputs = jnp.where(can & hidden, mask_id, jnp.where(can & redrawn, drawn, token_ids))
    return inputs, jnp.where(can & (share < rate), token_ids, IGNORE)


def _among(token_ids: jax.Array, ids: Iterable[int]) -> jax.Array:
    """Whether each token is one of `ids`."""
    member = jnp.zeros(token_ids.shape, bool)
    for first, last in _runs(ids):
        member |= (token_ids >= first) & (token_ids <= last)
    return member


def _runs(ids: Iterable[int]) -> list[tuple[int, int]]:
    """First and last id of each run of consecutive ids, ascending."""
    runs: list[tuple[int, int]] = []
    for id_ in sorted(set(ids)):
        follows = runs and id_ == runs[-1][1] + 1
        runs.append((runs.pop()[0] if follows else id_, id_))
    return runs
