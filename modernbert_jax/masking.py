"""Masked-language-model targets, made on the device from a key: the data carry no randomness."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

IGNORE = -100
"""The label of a position at which nothing is predicted."""


def mask_tokens(
    key: jax.Array,
    token_ids: jax.Array,
    segment_ids: jax.Array,
    *,
    rate: float,
    mask_id: int,
    vocab_size: int,
    special_ids: Sequence[int],
    mask_share: float = 0.8,
    random_share: float = 0.1,
    predict_special: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Hides a share of the tokens, as BERT does (Devlin et al. 2019, section 3.1).

    Every token is chosen with probability `rate`. A chosen token becomes `mask_id` with
    probability `mask_share`, a random ordinary token with probability `random_share`, and stays
    otherwise; in all three cases it is to be predicted.

    Args:
        key: what the masks are a function of, e.g. `jax.random.fold_in(key, step)`.
        token_ids, segment_ids: int32 [B, T]. Padding (segment 0) is never chosen.
        rate: ModernBERT trains with 0.3 and evaluates with 0.15.
        special_ids: never drawn as random tokens, and never chosen.
        predict_special: True lets special tokens be chosen, as the research code's packer does.

    Returns:
        Inputs and labels, int32 [B, T] each; a label is `IGNORE` where nothing is predicted.
    """
    choose_key, fate_key, random_key = jax.random.split(key, 3)
    special = jnp.asarray(sorted(set(special_ids)), jnp.int32)
    allowed = segment_ids != 0
    if not predict_special:
        allowed &= ~jnp.isin(token_ids, special)
    chosen = allowed & (jax.random.uniform(choose_key, token_ids.shape) < rate)
    fate = jax.random.uniform(fate_key, token_ids.shape)
    # Drawn among the ordinary ids, then moved past each special one: uniform and never special.
    drawn = jax.random.randint(random_key, token_ids.shape, 0, vocab_size - len(special))
    for id_ in sorted(set(special_ids)):
        drawn += drawn >= id_
    replaced = jnp.where(fate < mask_share, mask_id, token_ids)
    replaced = jnp.where((fate >= mask_share) & (fate < mask_share + random_share), drawn, replaced)
    inputs = jnp.where(chosen, replaced, token_ids)
    return inputs, jnp.where(chosen, token_ids, IGNORE)
