"""Outputs of this library for the directories of `models.py`, under the keys of the goldens."""

import dataclasses
from pathlib import Path

import models
import numpy as np

from modernbert_jax import ModernBert, convert
from modernbert_jax.convert import module_files
from modernbert_jax.heads import Classifier
from modernbert_jax.inference.runner import Document
from modernbert_jax.model import Encoder


def run(name: str, source: Path | convert.Checkpoint) -> dict[str, np.ndarray]:
    """Compute the outputs of a model, from its directory or its checkpoint."""
    checkpoint = source if isinstance(source, convert.Checkpoint) else convert.load(source)
    bert = ModernBert(checkpoint, attention="dense")
    run = {
        "hf": _hf,
        "embedding": _embedding,
        "reranker": _reranker,
        "late": _late,
        "sparse": _sparse,
    }
    return run[models.MODELS[name].kind](name, bert)


def without_modules(checkpoint: convert.Checkpoint) -> convert.Checkpoint:
    """The checkpoint without what its files say about modules."""
    own = {*module_files.files_of(checkpoint.files)}
    files = {n: x for n, x in checkpoint.files.items() if n not in own}
    extra = {k: x for k, x in checkpoint.extra.items() if k != "sentence_transformers"}
    return dataclasses.replace(checkpoint, files=files, extra=extra)


def _hf(name: str, bert: ModernBert) -> dict[str, np.ndarray]:
    documents, head = models.documents(name), models.MODELS[name].architecture
    if isinstance(bert.module, Encoder):
        return {"hidden": np.concatenate([x[[0, -1]] for x in bert.hidden(documents)])}
    if not isinstance(bert.module, Classifier):
        causal = bert.config.causal
        logits = (bert.causal_logits if causal else bert.mlm_logits)(documents)
        step = bert.config.vocab_size // 64
        return {"logits": np.concatenate([x[[0, -1]][:, ::step] for x in logits])}
    inputs = [Document(ids) for ids in documents]
    if head.endswith(("TokenClassification", "QuestionAnswering")):
        return {"logits": np.concatenate(bert.runner.run("logits", bert.params, inputs))}
    return {"logits": bert.runner.run("document_logits", bert.params, inputs, 1024)}


def _embedding(name: str, bert: ModernBert) -> dict[str, np.ndarray]:
    return {
        "default": bert.encode(models.TEXTS),
        "query": bert.encode(models.QUERIES, prompt_name="query"),
    }


def _reranker(name: str, bert: ModernBert) -> dict[str, np.ndarray]:
    return {"scores": bert.predict(models.PAIRS)}


def _sparse(name: str, bert: ModernBert) -> dict[str, np.ndarray]:
    vectors = {
        "queries": bert.sparse(models.QUERIES, prompt_name="query"),
        "documents": bert.sparse(models.TEXTS, prompt_name="document"),
        "default": bert.sparse(models.TEXTS)[:1],  # the program of the documents
    }
    similarities = bert.similarity(vectors["queries"], vectors["documents"])
    dense = {k: np.zeros((len(v), bert.config.vocab_size), np.float32) for k, v in vectors.items()}
    for key, rows in dense.items():
        for row, (indices, values) in zip(rows, vectors[key], strict=True):
            row[indices] = values
    return {**dense, "similarities": similarities}


def _late(name: str, bert: ModernBert) -> dict[str, np.ndarray]:
    vectors = {
        "queries": bert.encode_tokens(models.QUERIES, is_query=True),
        "documents": bert.encode_tokens(models.TEXTS),
    }
    lengths = {f"{k}_lengths": np.array([len(x) for x in v]) for k, v in vectors.items()}
    return {k: np.concatenate(v) for k, v in vectors.items()} | lengths
