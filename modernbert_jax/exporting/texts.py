"""How texts become token ids of a model, as plain data that `run` follows."""

from typing import Any

from modernbert_jax import late_interaction
from modernbert_jax.convert import Checkpoint
from modernbert_jax.late_interaction import added_tokens
from modernbert_jax.tokenizer import Tokenizer


def described(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    """Preparation of texts by name: "default" and the model's prompts, or "query" and "document".

    Of a name:
        prompt: prefix of a text, of a pair that of the first one.
        prefix: what is joined to that afterwards, before the prompt.
        prompt_tokens: number of tokens at the beginning of a text that belong to the prompt.
        strip, lower_case: whether spaces around a text are removed, and whether it is lowered.
        max_length: longest text in tokens; longer ones are cut at `truncation_side`.
        insert: id of a token that follows the first one, or null.
        fill_to, filler: number of tokens to which short texts are filled up, and the id for that.
        attend: whether other tokens attend to those.
        skip: ids of tokens whose vectors are left out.

    Returns:
        Nothing for a model without tokenizer.
    """
    tokenizer, pipeline = checkpoint.tokenizer, checkpoint.pipeline
    if tokenizer is None:
        return {}
    limit = checkpoint.config.max_position_embeddings
    longest = min((pipeline and pipeline.max_length) or limit, limit)
    common = {
        "prompt": "",
        "prefix": "",
        "prompt_tokens": 0,
        "strip": False,
        "lower_case": bool(pipeline and pipeline.lower_case),
        "max_length": longest,
        "truncation_side": tokenizer.truncation_side,
        "insert": None,
        "fill_to": 0,
        "filler": None,
        "attend": True,
        "skip": [],
    }
    if pipeline is None:
        return {"default": common}
    if pipeline.late is None:
        prompts = {"default": pipeline.prompt(None), **pipeline.prompts}
        return {name: {**common, **_prompt(tokenizer, text)} for name, text in prompts.items()}
    return {
        name: {**common, **_late(checkpoint, tokenizer, longest, is_query)}
        for name, is_query in (("document", False), ("query", True))
    }


def _prompt(tokenizer: Tokenizer, prompt: str) -> dict[str, Any]:
    tokens = len(tokenizer.encode([prompt])[0]) - 1 if prompt else 0
    return {"prompt": prompt, "prompt_tokens": tokens}


def _late(
    checkpoint: Checkpoint, tokenizer: Tokenizer, longest: int, is_query: bool
) -> dict[str, Any]:
    """What differs for queries or documents of late interaction."""
    pipeline = checkpoint.pipeline
    assert pipeline is not None and pipeline.late is not None
    late = pipeline.late
    prefix = late.query_prefix if is_query else late.document_prefix
    insert = added_tokens(tokenizer).get(prefix)
    length = (late.query_length if is_query else late.document_length) or longest
    fill_to = {"none": 0, "fixed": length, "min": late.expansion_length or 0}[late.expansion]
    words = () if is_query else late.skiplist
    skipped = (tokenizer.backend.token_to_id(word) for word in words)
    return {
        "prompt": pipeline.prompt(None),
        "prefix": prefix if insert is None else "",
        "strip": True,
        "max_length": length - (insert is not None),
        "insert": insert,
        "fill_to": fill_to if is_query else 0,
        "filler": late_interaction.filler_id(tokenizer, late) if is_query and fill_to else None,
        "attend": late.attend,
        "skip": [i for i in skipped if i is not None],
    }
