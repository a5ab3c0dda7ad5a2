"""Losses against the plain formula, and the whole model against dense attention in float32."""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modernbert_jax.config import Dtype, Runtime
from modernbert_jax.heads import MaskedLM
from modernbert_jax.masking import IGNORE
from modernbert_jax.packing import Rows
from modernbert_jax.train import loss as losses

from .. import cases, timing
from ..registry import register
from ..results import FailedCheckError, Number, Numbers, Result, attempt
from ..scale import Scale

LIMITS = {"bfloat16": 1e-2, "float32": 1e-4}
"""Largest relative error of a loss and of its gradient."""

MODEL_LIMITS = {"bfloat16": 5e-2, "float32": 1e-3}
"""Largest relative error of hidden states; bfloat16 rounds in each of 22 layers."""

MASK_RATE = 0.3


@register("loss", group="loss", order=60, seconds=25)
def masked_lm(scale: Scale) -> Iterator[Result]:
    """The masked-LM loss and its gradient; the model below it has one layer."""
    for dtype in scale.dtypes:
        programs = dict(timing.compile_all(loss_programs(dtype, scale)))

        def measure(programs=programs, dtype=dtype) -> Numbers:
            ours, exact = (timing.ready(programs[side]) for side in ("ours", "plain"))
            arguments = jax.jit(lambda: loss_arguments(dtype, scale))()
            return _compared(ours(*arguments), exact(*arguments), LIMITS[dtype])

        labels = {"loss": "masked LM", "type": dtype, "tokens": f"{_rows(scale).size:,}"}
        yield attempt(f"masked LM {dtype}", labels, measure)


@register("model", group="model", order=90, seconds=35)
def model(scale: Scale) -> Iterator[Result]:
    """Hidden states of base by the default attention, in both types."""
    programs = dict(timing.compile_all(model_programs(scale)))
    segment_ids = _rows(scale)
    for dtype in scale.dtypes:

        def measure(dtype=dtype) -> Numbers:
            exact, ours = (timing.ready(programs[key]) for key in ("oracle", dtype))
            module = _module("float32", scale, whole=True)
            rows = _tokens(segment_ids, module.config.vocab_size)
            params = jax.jit(partial(_init, module, rows))()
            error = _relative(ours(params, rows), exact(params, rows))
            return _within({"hidden": error}, MODEL_LIMITS[dtype])

        labels = {"model": "tiny" if scale.tiny else "base", "type": dtype}
        yield attempt(f"hidden states {dtype}", labels, measure)


def loss_programs(dtype: Dtype, scale: Scale) -> Iterator[tuple[str, timing.Program]]:
    """The loss with its gradient: ours, and all logits at once."""
    module = _module(dtype, scale)
    shapes = jax.eval_shape(lambda: loss_arguments(dtype, scale))

    def ours(params, rows, labels):
        return losses.masked_lm_loss(module, params, *rows, labels)[0]

    def plain(params, rows, labels):
        logits = module.apply({"params": params}, *rows)
        predicted = labels != IGNORE
        chosen = jnp.take_along_axis(logits, jnp.maximum(labels, 0)[..., None], -1)[..., 0]
        return jnp.where(predicted, jax.nn.logsumexp(logits, -1) - chosen, 0.0).sum()

    for name, function in (("ours", ours), ("plain", plain)):
        yield name, timing.Program(_precise(jax.value_and_grad(function), dtype), shapes)


def loss_arguments(dtype: Dtype, scale: Scale) -> tuple[Any, ...]:
    """Random parameters, rows and labels. Traceable."""
    module, segment_ids = _module(dtype, scale), _rows(scale)
    rows = _tokens(segment_ids, module.config.vocab_size)
    params = _init(module, rows)
    drawn = np.random.default_rng(1).random(segment_ids.shape) < MASK_RATE
    return params, rows, np.where(drawn & (segment_ids > 0), rows.token_ids, IGNORE)


def model_programs(scale: Scale) -> Iterator[tuple[str, timing.Program]]:
    """Hidden states by the oracle's attention in float32, and by the default in each type."""
    rows = _tokens(_rows(scale), _module("float32", scale, whole=True).config.vocab_size)
    models: list[tuple[str, Dtype, str]] = [("oracle", "float32", "dense")]
    models += [(dtype, dtype, "auto") for dtype in scale.dtypes]
    for name, dtype, attention in models:
        module = _module(dtype, scale, whole=True, attention=attention)
        params = jax.eval_shape(partial(_init, module, rows))

        def hidden(params, rows, module=module):
            return module.apply({"params": params}, *rows, method="hidden")

        yield name, timing.Program(_precise(hidden, dtype), (params, rows))


def _precise(function: Any, dtype: Dtype) -> Any:
    """Keeps products of float32 in float32, which accelerators round by default."""

    def traced(*arguments):
        with jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
            return function(*arguments)

    return traced


def _module(dtype: Dtype, scale: Scale, whole: bool = False, attention: str = "auto") -> MaskedLM:
    config = scale.model("base")
    if not whole:
        config = dataclasses.replace(config, num_hidden_layers=1)
    return MaskedLM(config, Runtime(dtype=dtype, attention=attention))


def _init(module: MaskedLM, rows: Rows) -> Any:
    return module.init(jax.random.key(0), *rows)["params"]


def _rows(scale: Scale) -> np.ndarray:
    """Segment ids of documents and a padded tail."""
    count, length = (2, 64) if scale.tiny else (4, 1024)
    documents = cases.lognormal(length, count)
    documents[-1] = documents[-1][:1]
    return cases.segments(documents, length)


def _tokens(segment_ids: np.ndarray, vocabulary: int) -> Rows:
    ids = np.random.default_rng(0).integers(0, vocabulary, segment_ids.shape, np.int32)
    return Rows(ids, segment_ids, cases.positions(segment_ids))


def _compared(ours: Any, exact: Any, limit: float) -> Numbers:
    flat = [
        jnp.concatenate([x.ravel() for x in jax.tree.leaves(grads)]) for _, grads in (ours, exact)
    ]
    errors = {"loss": abs(float(ours[0]) / float(exact[0]) - 1), "gradient": _relative(*flat)}
    return _within(errors, limit)


def _relative(x: jax.Array, exact: jax.Array) -> float:
    x, exact = x.astype(jnp.float32), exact.astype(jnp.float32)
    return float(jnp.linalg.norm((x - exact).ravel()) / jnp.linalg.norm(exact.ravel()))


def _within(errors: dict[str, float], limit: float) -> Numbers:
    """The errors as numbers. Raises `FailedCheckError` if one is above the limit, or not finite."""
    numbers = {name: Number(error, "") for name, error in errors.items()}
    if wrong := [f"{name} is off by {e:.1e}" for name, e in errors.items() if not e <= limit]:
        raise FailedCheckError("; ".join(wrong), numbers)
    return numbers
