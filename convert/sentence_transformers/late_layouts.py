"""What the files of a late-interaction model say, in PyLate's layout and in the later one.

The later one is that of `MultiVectorEncoder` in sentence-transformers 6, which reads PyLate's, too.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from modernbert_jax import late_interaction
from modernbert_jax.errors import UserError
from modernbert_jax.pipeline import Dense, LateInteraction, Normalize, Pipeline, Step
from modernbert_jax.tokenizer import Tokenizer

from ..module_late import LATER

OF_TOKENS = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
"""Keys of a module of the later layout that takes and gives token vectors."""

Modules = list[tuple[str, str, dict[str, Any] | None]]
"""Class, folder and configuration of each module after the Transformer."""


class Description(NamedTuple):
    """Content of the files about modules."""

    modules: Modules
    settings: dict[str, Any]
    """Keys of `config_sentence_transformers.json`."""
    transformer: dict[str, Any]
    """Keys of `sentence_bert_config.json` about lengths and expansion."""


def pylate(
    pipeline: Pipeline,
    tokenizer: Tokenizer | None,
    length: int,
    module: Callable[[Step, int], tuple[str, dict[str, Any]]],
) -> Description:
    """The description in PyLate's layout.

    Args:
        pipeline: of a late-interaction model.
        tokenizer: of the model, in which PyLate looks the prefixes up.
        length: the longest input in tokens, for lengths that are not given.
        module: folder and configuration of a step that is module `number`, from 1.

    Raises:
        UserError: one line with the first thing that PyLate does not have.
    """
    late = _checked(pipeline)
    *layers, last = pipeline.steps or (None,)
    if not layers or last != Normalize() or not all(isinstance(x, Dense) for x in layers):
        raise _inexpressible("PyLate", "it needs Dense and Normalize at the end")
    if late.expansion == "min":
        raise _inexpressible("PyLate", "it fills all queries up to the same length, or none")
    if pipeline.similarity == "MeanMaxSim":
        raise _inexpressible("PyLate", "it compares with MaxSim, not MeanMaxSim")
    if pipeline.token_pooling is not None:
        raise _inexpressible("PyLate", "token pooling is an argument of its encode, not a module")
    query, query_prompt = _split(late.query_prefix, tokenizer)
    document, document_prompt = _split(late.document_prefix, tokenizer)
    assert tokenizer is not None  # both prefixes begin with its tokens
    if late.expansion == "fixed" and late.filler not in (
        None,
        tokenizer.token(tokenizer.filler_id),
    ):
        raise _inexpressible("PyLate", f"it fills queries up with the mask, not {late.filler!r}")
    modules: Modules = []
    for number, step in enumerate(layers, start=1):
        assert isinstance(step, Dense)
        path, config = module(step, number)
        modules.append(("TokenDense", path, {**config, "use_residual": step.residual}))
    settings: dict[str, Any] = {
        "model_type": "ColBERT",
        "prompts": {**pipeline.prompts, "query": query_prompt, "document": document_prompt},
        "default_prompt_name": pipeline.default_prompt,
        "similarity_fn_name": "MaxSim",
        "query_prefix": query,
        "document_prefix": document,
        "query_length": late.query_length or length,
        "document_length": late.document_length or length,
        "attend_to_expansion_tokens": late.attend,
        # PyLate treats an empty list like a missing one and then skips punctuation.
        "skiplist_words": list(late.skiplist) or [tokenizer.token(tokenizer.pad_id)],
        "do_query_expansion": late.expansion == "fixed",
    }
    return Description(modules, settings, {"max_seq_length": length})


def _split(prefix: str, tokenizer: Tokenizer | None) -> tuple[str, str]:
    """A prefix as a token that was added to the tokenizer, and a prompt after it."""
    added = late_interaction.added_tokens(tokenizer) if tokenizer else {}
    tokens = [token for token in added if prefix.startswith(token)]
    if not tokens:
        raise _inexpressible("PyLate", f"its prefix {prefix!r} does not begin with an added token")
    token = max(tokens, key=len)
    return token, prefix.removeprefix(token)


def later(
    pipeline: Pipeline,
    tokenizer: Tokenizer | None,
    length: int,
    module: Callable[[Step, int], tuple[str, dict[str, Any]]],
) -> Description:
    """The description in the layout of `MultiVectorEncoder`; arguments as of `pylate`.

    Raises:
        UserError: one line with the first thing that sentence-transformers does not have.
    """
    late = _checked(pipeline)
    modules: Modules = []
    # The mask comes before normalisation, as the library places it.
    end = next((i for i, x in enumerate(pipeline.steps) if x == Normalize()), len(pipeline.steps))
    for step in (*pipeline.steps[:end], None, *pipeline.steps[end:]):
        number = len(modules) + 1
        if step is None:
            modules.append(("MultiVectorMask", f"{number}_MultiVectorMask", _mask(late)))
        elif isinstance(step, Dense | Normalize):
            path, config = module(step, number)
            modules.append((type(step).__name__, path, config | OF_TOKENS))
        else:
            kind = type(step).__name__
            raise _inexpressible("sentence-transformers", f"it has no {kind} of token vectors")
    if pooling := pipeline.token_pooling:
        config = {
            "pool_factor": pooling.factor,
            "num_protected_tokens": pooling.protected,
            "normalize_embeddings": pooling.normalize,
            "tasks": ["document"],
        }
        path = f"{len(modules) + 1}_HierarchicalTokenPooling"
        modules.append(("HierarchicalTokenPooling", path, config))
    for is_query, prefix in ((True, late.query_prefix), (False, late.document_prefix)):
        if tokenizer and not _is_text(prefix, is_query, late, tokenizer, length):
            raise _inexpressible(
                "sentence-transformers", f"its prefix {prefix!r} is other tokens within a text"
            )
    settings = {
        "model_type": LATER,
        "prompts": {
            **pipeline.prompts,
            "query": late.query_prefix,
            "document": late.document_prefix,
        },
        "default_prompt_name": pipeline.default_prompt,
        "similarity_fn_name": (pipeline.similarity or "MaxSim").lower(),
    }
    transformer: dict[str, Any] = {"document_length": late.document_length}
    if late.expansion != "none":
        fixed = late.expansion == "fixed"
        transformer["query_expansion"] = {
            "strategy": late.expansion,
            "attend": late.attend,
            "token": late.filler,
            "length": (late.query_length or length) if fixed else late.expansion_length,
        }
    if late.expansion != "fixed":  # which has one length for both
        transformer["query_length"] = late.query_length
    transformer = {key: x for key, x in transformer.items() if x is not None}
    return Description(modules, settings, transformer)


def _mask(late: LateInteraction) -> dict[str, Any]:
    """Configuration of the module that leaves tokens of documents out."""
    return {
        "skiplist_words": list(late.skiplist),
        "skiplist_tasks": ["document"],
        "keep_only_token_ids": None,
    }


def _is_text(
    prefix: str, is_query: bool, late: LateInteraction, tokenizer: Tokenizer, length: int
) -> bool:
    """Whether a prefix that is joined to a text has the same tokens as here."""
    own = late_interaction.tokenize(["a"], tokenizer, late, is_query=is_query, longest=length)[0]
    (joined,) = tokenizer.encode([prefix + "a"], max_length=own.visible)
    return own.ids[: len(joined)] == joined


def _checked(pipeline: Pipeline) -> LateInteraction:
    assert pipeline.late is not None  # both layouts are for late interaction
    pipeline.late.check()
    return pipeline.late


def _inexpressible(library: str, reason: str) -> UserError:
    return UserError(f"{library} cannot express this model: {reason}")
