"""Routes with the fields of the tasks of Hugging Face's client, and / for clients of an address."""

from typing import Any

from . import tei
from .faults import invalid
from .fields import Fields
from .labelling import entities, words
from .reading import Reading
from .service import Service, in_thread

_TOP_K = 5
"""Candidates for a mask, where the request does not say."""

_MOST = 100
"""Candidates for a mask or an answer at most."""

_STRATEGIES = ("none", "simple", "first", "average", "max")
"""How words become entities: none is not at all, and all others are the same."""

_OUTSIDE = "O"
"""Label that is left out, where the request does not say."""


async def similarity(service: Service, fields: Fields) -> Any:
    """The model's own similarity of a text with each of several."""
    inputs = fields.object("inputs")
    source, sentences = inputs.get("source_sentence", str), inputs.texts("sentences")
    return await service.similarities(source, sentences, Reading.of(fields.object("parameters")))


async def fill_mask(service: Service, fields: Fields) -> Any:
    """The likeliest tokens for each mask of a text; of several masks a list for each."""
    text, parameters = fields.get("inputs", str), fields.object("parameters")
    if "targets" in parameters:
        raise invalid("parameters.targets", "is not supported; leave it out")
    top_k = parameters.count("top_k", _MOST) or _TOP_K
    masks = await service.masks(text, Reading.of(fields), top_k)
    return masks[0] if len(masks) == 1 else masks


async def token_classification(service: Service, fields: Fields) -> Any:
    """Entities of a text, or of each of several; `aggregation_strategy` none gives all words."""
    inputs, parameters = fields.raw("inputs"), fields.object("parameters")
    texts = fields.texts("inputs") if isinstance(inputs, list) else [fields.get("inputs", str)]
    by_word = parameters.choice("aggregation_strategy", _STRATEGIES, "simple") == "none"
    ignored = [_OUTSIDE]
    if "ignore_labels" in parameters:
        ignored = parameters.texts("ignore_labels", may_be_empty=True)
    changes = _changes(parameters, stride="stride")
    found = await service.labelled("token-classifier", [[text] for text in texts], changes)

    def described() -> list[list[dict[str, Any]]]:
        rows = (words(text) if by_word else entities(text) for text in found)
        key = "entity" if by_word else "entity_group"
        return [[item for item in row if item[key] not in ignored] for row in rows]

    lists = await in_thread(described)
    return lists if isinstance(inputs, list) else lists[0]


async def question_answering(service: Service, fields: Fields) -> Any:
    """The answer to a question in a text, or the best ones with `top_k` above 1."""
    inputs, parameters = fields.object("inputs"), fields.object("parameters")
    texts = inputs.get("question", str), inputs.get("context", str)
    top_k = parameters.count("top_k", _MOST) or 1
    changes = _changes(
        parameters,
        stride="doc_stride",
        max_length="max_seq_len",
        max_answer_length="max_answer_len",
    )
    if "handle_impossible_answer" in parameters:
        changes["no_answer"] = parameters.get("handle_impossible_answer", bool)
    (found,) = await service.labelled("question-answering", [texts], changes)
    answer = await in_thread(found.prediction)
    if top_k == 1:
        return {key: answer[key] for key in ("answer", "score", "start", "end")}
    return [
        {"answer": c["text"], "score": c["score"], "start": c["start"], "end": c["end"]}
        for c in answer["candidates"][:top_k]
    ]


def _changes(parameters: Fields, **names: str) -> dict[str, Any]:
    """Fields of the task that a request changes, by their names in it."""
    values = {
        field: parameters.count(name, 2**20, least=0 if field == "stride" else 1)
        for field, name in names.items()
    }
    return {field: value for field, value in values.items() if value is not None}


async def root(service: Service, fields: Fields) -> Any:
    """What the model does, by its kind and the form of the inputs: for clients of an address."""
    if service.kind == "question-answering":
        return await question_answering(service, fields)
    if fields.is_object("inputs"):
        return await similarity(service, fields)
    if "query" in fields:
        return await tei.rerank(service, fields)
    answers = {
        "embedding": tei.embed,
        "late-interaction": tei.embed_all,
        "sparse": tei.embed_sparse,
        "reranker": tei.predict,
        "classifier": tei.predict,
        "token-classifier": token_classification,
    }
    return await answers[service.kind](service, fields)
