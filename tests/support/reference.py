"""Runs of this library with weights and gradients under Hugging Face names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import jax
import jax.numpy as jnp
import numpy as np

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.convert import names
from modernbert_jax.heads import MaskedLM
from modernbert_jax.train.loss import masked_lm_loss

FIXTURES = Path(__file__).parents[1] / "fixtures"
GOLDENS = Path(__file__).parents[1] / "goldens"

Weights = Callable[[str, tuple[int, ...]], np.ndarray]


def parameters(config: ModernBertConfig, weights: Weights) -> names.Params:
    """Build our parameters from a function of a tensor's Hugging Face name and shape."""
    rows = names.table(config, "masked_lm")
    tensors = {name: weights(name, row.shape) for name, row in rows.items()}
    return names.to_params(tensors, rows, "weights")


def loss_and_gradients(
    config: ModernBertConfig, batch: cases.Batch, params: names.Params
) -> dict[str, Any]:
    """Compute `hidden` and `logits`, the mean `loss`, and `grads` by Hugging Face name."""
    module = MaskedLM(config)

    @jax.jit
    def run(params):
        def mean_loss(params):
            total, count = masked_lm_loss(module, params, *batch)
            return total / count

        hidden = module.apply({"params": params}, *batch[:3], method="hidden")
        logits = module.apply({"params": params}, hidden, method="logits")
        return hidden, logits, *jax.value_and_grad(mean_loss)(params)

    hidden, logits, loss, grads = run(jax.tree.map(jnp.asarray, params))
    return {
        "hidden": np.asarray(hidden),
        "logits": np.asarray(logits),
        "loss": float(loss),
        "grads": names.to_tensors(
            jax.tree.map(np.asarray, grads), names.table(config, "masked_lm")
        ),
    }


def document_tokens(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column in the packed batch for every token of `cases.documents`."""
    documents = cases.documents(name)
    rows = [np.full(len(d.token_ids), d.row) for d in documents]
    columns = [d.start + np.arange(len(d.token_ids)) for d in documents]
    return np.concatenate(rows), np.concatenate(columns)


def one_row(token_ids: np.ndarray, labels: np.ndarray, cu_seqlens: np.ndarray) -> cases.Batch:
    """Build a batch of one row from concatenated documents and their boundaries."""
    lengths = np.diff(cu_seqlens)
    segments = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    positions = np.arange(len(token_ids)) - np.repeat(cu_seqlens[:-1], lengths)
    arrays = (token_ids, segments, positions, labels)
    return cases.Batch(*(np.asarray(x, np.int32)[None] for x in arrays))


def hf_name(research: str) -> str:
    """Return the Hugging Face name of a tensor of the original research code."""
    if research.startswith("bert."):
        return "model." + research.removeprefix("bert.").removeprefix("encoder.")
    return research
