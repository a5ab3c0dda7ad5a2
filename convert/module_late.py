"""Read the settings of late interaction from the files that `module_files` lists.

The layout of PyLate keeps them in the settings of the whole model. That of sentence-transformers 6
keeps prefixes as prompts, lengths and expansion with the Transformer, and the skiplist in a module.
"""

import string
from collections.abc import Mapping
from typing import Any

from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.late_interaction import SIMILARITIES
from modernbert_jax.pipeline import LateInteraction, TokenPooling

from .module_files import CONFIG, MODULES, SETTINGS, TRANSFORMER, Fields, json_of

LATER = "MultiVectorEncoder"
"""The `model_type` of the later layout."""

_DOCUMENTS = ("document", "passage", "corpus")
"""Names that the prefix of documents has in the later layout; the first one counts."""

MODULES_OF_ITS_OWN = ("MultiVectorMask", "HierarchicalTokenPooling")
"""Classes of modules that only late-interaction models have."""


def is_later(settings: Mapping[str, Any]) -> bool:
    """Whether settings of a late-interaction model are those of the later layout."""
    return settings.get("model_type") == LATER


def prompts_in_prefixes(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the prompts that every query or document has, and that prefixes contain."""
    return ("query", *(_DOCUMENTS if is_later(settings) else _DOCUMENTS[:1]))


def longest_of_pylate(settings: Mapping[str, Any], late: LateInteraction | None) -> int:
    """Shortest meaningful limit of the Transformer in tokens.

    PyLate saves there the length of the texts that it tokenized last.
    """
    if late is None or is_later(settings):
        return 2
    return max(2, late.query_length or 0, late.document_length or 0)


def similarity(name: str | None) -> str:
    """A key of `late_interaction.SIMILARITIES` by its name in the files, of whatever case.

    A similarity of single vectors, which converted models may name, means MaxSim.
    """
    known = {own.lower(): own for own in SIMILARITIES}
    return known.get(str(name).lower(), "MaxSim")


def later(
    files: Mapping[str, bytes],
    listed: list[tuple[str, str]],
    settings: Fields,
    transformer: Mapping[str, Any],
) -> LateInteraction:
    """The settings in the layout of sentence-transformers 6.

    Args:
        files: contents by path.
        listed: class and folder of every module.
        settings: of the whole model.
        transformer: settings of the Transformer.

    Raises:
        UserError: values of a wrong type, or settings that are not supported.
    """
    masks = [path + CONFIG for name, path in listed if name == "MultiVectorMask"]
    mask = Fields(masks[0] if masks else CONFIG, json_of(files, masks[0]) if masks else {})
    own = Fields(TRANSFORMER, transformer)
    prompts = Fields(SETTINGS, settings.get("prompts", dict, {}))
    document = next((name for name in _DOCUMENTS if name in prompts.values), "document")
    late = LateInteraction(
        query_prefix=prompts.get("query", str, ""),
        document_prefix=prompts.get(document, str, ""),
        document_length=own.get("document_length", int),
        skiplist=_skiplist(mask),
        **_expansion(own),
    )
    late.check()
    return late


def token_pooling(files: Mapping[str, bytes], listed: list[tuple[str, str]]) -> TokenPooling | None:
    """The last module if it pools tokens.

    Raises:
        UserError: such a module elsewhere, or one with settings that are not supported.
    """
    paths = [path + CONFIG for name, path in listed if name == "HierarchicalTokenPooling"]
    if not paths:
        return None
    if len(paths) > 1 or listed[-1][0] != "HierarchicalTokenPooling":
        raise UserError(
            f"{MODULES}: HierarchicalTokenPooling must be the last module, and the only"
        )
    own = Fields(paths[0], json_of(files, paths[0]))
    if (tasks := own.values.get("tasks") or ["document"]) not in (["document"], "document"):
        raise UserError(f"{own.file}: tasks is {tasks!r}; only pooling of documents is supported")
    return TokenPooling(
        factor=own.get("pool_factor", (int, float), 1.0),
        protected=own.get("num_protected_tokens", int, 1),
        normalize=own.get("normalize_embeddings", bool, False),  # missing in older files
    )


def _skiplist(mask: Fields) -> tuple[str, ...]:
    """Words of a MultiVectorMask."""
    skiplist, tasks = _words(mask), mask.values.get("skiplist_tasks") or ["document"]
    if mask.values.get("keep_only_token_ids"):
        raise UserError(f"{mask.file}: keep_only_token_ids is not supported; set it to null")
    if skiplist and tasks not in (["document"], "document"):
        raise UserError(
            f"{mask.file}: skiplist_tasks is {tasks!r}; only a skiplist of documents is supported"
        )
    return skiplist


def _expansion(transformer: Fields) -> dict[str, Any]:
    """Fields of `LateInteraction` about queries, from the settings of the Transformer."""
    query_length = transformer.get("query_length", int)
    if not (values := transformer.get("query_expansion", dict, {})):
        return {"query_length": query_length}
    own = Fields(f"{transformer.file}: query_expansion", values)
    strategy, length = values.get("strategy"), own.size("length")
    if strategy not in ("fixed", "min"):
        remedy = did_you_mean(str(strategy), ("fixed", "min"))
        raise UserError(f"{own.file}: strategy is {strategy!r}; {remedy}")
    return {
        "query_length": length if strategy == "fixed" else query_length,
        "expansion": strategy,
        "expansion_length": length if strategy == "min" else None,
        "filler": own.get("token", str),
        "attend": own.get("attend", bool, False),
    }


def of_pylate(settings: Fields) -> LateInteraction:
    """PyLate's settings, with its defaults for missing keys.

    PyLate inserts the prefix as a token, before a prompt that its users name. Here, as in
    sentence-transformers 6, the prompts `query` and `document` always follow the prefixes.
    """
    expand = settings.get("do_query_expansion", bool, True)
    prompts = Fields(settings.file, settings.get("prompts", dict, {}))
    query, document = (
        prefix + prompts.get(role, str, "").removeprefix(prefix)
        for role, default in (("query", "[Q] "), ("document", "[D] "))
        if (prefix := settings.get(f"{role}_prefix", str) or default)
    )
    return LateInteraction(
        query_prefix=query,
        document_prefix=document,
        query_length=settings.get("query_length", int) or 32,
        document_length=settings.get("document_length", int) or 180,
        expansion="fixed" if expand else "none",
        attend=expand and settings.get("attend_to_expansion_tokens", bool, False),
        skiplist=_words(settings) or tuple(string.punctuation),
    )


def _words(settings: Fields) -> tuple[str, ...]:
    words = settings.get("skiplist_words", list, [])
    if not all(isinstance(word, str) for word in words):
        raise UserError(f"{settings.file}: skiplist_words is {words!r}; it must be a list of words")
    return tuple(words)
