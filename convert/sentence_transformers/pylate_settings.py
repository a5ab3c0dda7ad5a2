"""Settings of a late-interaction model as PyLate writes them."""

from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.pipeline import LateInteraction
from modernbert_jax.tokenizer import Tokenizer


def of(late: LateInteraction, tokenizer: Tokenizer | None, length: int) -> dict[str, Any]:
    """Keys of `config_sentence_transformers.json`.

    Args:
        late: what they describe.
        tokenizer: of the model, in which PyLate looks the prefixes up.
        length: the longest input in tokens, for lengths that are not given.

    Raises:
        UserError: a prefix that is not a token.
    """
    for prefix in (late.query_prefix, late.document_prefix):
        if not prefix or tokenizer is None or tokenizer.backend.token_to_id(prefix) is None:
            raise UserError(
                f"PyLate cannot express this model: its prefix {prefix!r} is not a token"
            )
    assert tokenizer is not None  # both prefixes are its tokens
    return {
        "model_type": "ColBERT",
        "prompts": {"query": "", "document": ""},
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
        "query_prefix": late.query_prefix,
        "document_prefix": late.document_prefix,
        "query_length": late.query_length or length,
        "document_length": late.document_length or length,
        "attend_to_expansion_tokens": late.attend,
        # PyLate treats an empty list like a missing one and then skips punctuation.
        "skiplist_words": list(late.skiplist) or [tokenizer.token(tokenizer.pad_id)],
        "do_query_expansion": late.expansion == "fixed",
    }
