"""Masks of a text: where they are, and their candidates as clients read them."""

from typing import Any

import numpy as np

from modernbert_jax.inference.runner import Document
from modernbert_jax.language_modelling import spelling
from modernbert_jax.tokenizer import Tokenizer

from .faults import invalid, too_large
from .programs import MASKS


def places(tokenizer: Tokenizer, document: Document) -> np.ndarray:
    """Places of the masks among the tokens of a text. Raises `Fault` for none or too many."""
    mask = tokenizer.mask_id
    found = np.flatnonzero(np.asarray(document.ids) == mask)
    if not found.size:
        raise invalid("inputs", f"has no {tokenizer.token(mask)} to fill")
    if len(found) > MASKS:
        raise too_large(f"inputs has {len(found):,} masks; at most {MASKS} are filled", "inputs")
    return found


def candidates(
    tokenizer: Tokenizer,
    document: Document,
    places: np.ndarray,
    best: list[list[tuple[int, float]]],
) -> list[list[dict[str, Any]]]:
    """Candidates of each mask with the text that has them in its place."""
    ids = np.asarray(document.ids)
    ends = [tokenizer.role_id(role) for role in ("cls", "sep")]

    def filled(place: int, token: int) -> str:
        changed = ids.copy()
        changed[place] = token
        return tokenizer.decode([i for i in changed.tolist() if i not in ends])

    return [
        [
            {
                "score": score,
                "token": token,
                "token_str": spelling(tokenizer, token),
                "sequence": filled(place, token),
            }
            for token, score in of_mask
        ]
        for place, of_mask in zip(places, best, strict=True)
    ]
