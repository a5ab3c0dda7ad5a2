"""Model card of a retrieval model: data, results, use and settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modernbert_jax import convert
from modernbert_jax.pipeline import Pipeline

from ..examples import card
from . import summary
from .losses import LossConfig
from .session import Session

_KINDS = {
    "embedding": ("sentence-similarity", "Embedding model", "SentenceTransformer"),
    "late-interaction": ("sentence-similarity", "Late-interaction model", "MultiVectorEncoder"),
    "reranker": ("text-ranking", "Reranker", "CrossEncoder"),
    "sparse": ("feature-extraction", "Sparse encoder", "SparseEncoder"),
}
"""The hub's pipeline tag, the title, and the class of sentence-transformers of each kind."""


def text(session: Session, model: convert.Checkpoint, result: Mapping[str, Any]) -> str:
    """Return the model card as Markdown with the hub's header.

    Args:
        session: the run with its data.
        model: the exported model.
        result: the run's result; see `training.train`.
    """
    config, pipeline = session.config, model.pipeline or Pipeline(kind=session.config.kind)
    tag, title, _ = _KINDS[config.kind]
    sets = [Path(path).name for path in config.train]
    values = {
        "library_name": "sentence-transformers",
        "pipeline_tag": tag,
        "tags": [
            "sentence-transformers",
            "modernbert",
            "modernbert-jax",
            *dict.fromkeys(f"loss:{own.name}" for own in config.every_loss),
            *(("sparse-encoder", "splade") if config.kind == "sparse" else ()),
        ],
    }
    lines = [*card.header(values, config.model), f"# {title} on ModernBERT", ""]
    lines += [f"Started from `{card.start(config.model)}`.", ""]
    lines += ["| | |", "| --- | --- |", *_facts(session, pipeline), ""]
    lines += ["## Training data", ""]
    for name, dataset in zip(sets, session.train, strict=True):
        lines.append(f"- `{name}`: {summary.examples(dataset)}")
    lines += ["", "## Results", "", *card.table(result), "", "## Use", ""]
    lines += ["With sentence-transformers:", "", "```python", *_foreign(config.kind, pipeline)]
    lines += ["```", "", "With modernbert-jax:", "", "```python", *_own(config.kind, pipeline)]
    lines += ["```", "", "## Training", ""]
    lines += [*card.settings(config, card.SETTINGS, result)]
    options = _options("loss", config.loss)
    for name, own in config.losses.items():
        options |= _options(f"loss of {name}", own)
    if config.matryoshka_dims:
        options["matryoshka dims"] = ", ".join(map(str, config.matryoshka_dims))
    if config.kind == "sparse":
        names = ("query_flops", "document_flops", "flops_ramp")
        options |= {name: f"{getattr(config, name):.3g}" for name in names}
    lines += [f"| {name.replace('_', ' ')} | {value} |" for name, value in options.items()]
    return "\n".join([*lines, ""])


def _options(title: str, loss: LossConfig) -> dict[str, Any]:
    """A loss and its options that are not at their defaults, for a table."""
    options = {title: loss.name, **{f"{title}: {k}": x for k, x in loss.options.items()}}
    return options | ({f"{title}: orthogonality": loss.orthogonality} if loss.orthogonality else {})


def _facts(session: Session, pipeline: Pipeline) -> list[str]:
    model = session.trainee.model
    facts: dict[str, Any] = {}
    if pipeline.late is not None:
        late = pipeline.late
        facts["dimensions of a token"] = pipeline.width(model.hidden_size)
        facts["similarity"] = pipeline.similarity
        for role, prefix, length in (
            ("query", late.query_prefix, late.query_length),
            ("document", late.document_prefix, late.document_length),
        ):
            facts[f"prefix of a {role}"] = f"`{prefix}`" if prefix else "none"
            facts[f"longest {role}"] = f"{length:,} tokens" if length else "that of a text"
        facts["query expansion"] = late.expansion
        facts["skipped tokens of documents"] = f"`{' '.join(late.skiplist)}`" * bool(late.skiplist)
    elif session.config.kind == "embedding":
        facts["dimensions"] = pipeline.width(model.hidden_size)
        facts["similarity"] = pipeline.similarity
        facts["pooling"] = ", ".join(pipeline.pooling.modes) if pipeline.pooling else ""
    elif pipeline.splade is not None:
        facts["weights of a text"] = f"at most {pipeline.max_active_dims or model.vocab_size:,}"
        facts["similarity"] = pipeline.similarity
        facts["pooling"] = f"{pipeline.splade.strategy} of {pipeline.splade.activation}"
    else:
        facts["scored by"] = "modules after the encoder" if pipeline.steps else "a classifier"
        facts["activation"] = (pipeline.activation or "").rpartition(".")[2]
    facts["longest text"] = f"{pipeline.max_length or model.max_position_embeddings:,} tokens"
    for name, prompt in pipeline.prompts.items():
        facts[f"prompt `{name}`"] = f"`{prompt}`"
    return [f"| {name} | {value} |" for name, value in facts.items()]


def _foreign(kind: str, pipeline: Pipeline) -> list[str]:
    """Lines of Python that use the model with sentence-transformers."""
    name = _KINDS[kind][2]
    lines = [f"from sentence_transformers import {name}", "", f'model = {name}(".")']
    if kind == "reranker":
        return [*lines, "scores = model.predict([(query, document) for document in documents])"]
    return [
        *lines,
        "queries = model.encode_query(queries)",
        "documents = model.encode_document(documents)",
        "scores = model.similarity(queries, documents)",
    ]


def _own(kind: str, pipeline: Pipeline) -> list[str]:
    """Lines of Python that use the model here."""
    lines = ["from modernbert_jax import ModernBert", "", 'model = ModernBert.from_pretrained(".")']
    if kind == "reranker":
        return [*lines, "scores = model.predict([(query, document) for document in documents])"]

    if pipeline.late is not None:
        return [
            *lines,
            "queries = model.encode_tokens(queries, is_query=True)",
            "documents = model.encode_tokens(documents, is_query=False)",
            "scores = model.similarity(queries, documents)",
        ]

    def encoded(role: str) -> str:
        name = f', prompt_name="{role}"' if role in pipeline.prompts else ""
        return f"({'queries' if role == 'query' else 'documents'}{name})"

    method = "sparse" if kind == "sparse" else "encode"
    return [
        *lines,
        f"queries = model.{method}{encoded('query')}",
        f"documents = model.{method}{encoded('document')}",
        "scores = model.similarity(queries, documents)",
    ]
