"""Loss and gradients of a batch over its microbatches: in one pass, or in two where they couple.

A coupled loss looks at the outputs of the whole batch. Keeping the activations of all microbatches
until the loss is known would need their memory at once, so (gradient caching, Gao et al. 2021):

1. compute the outputs of every microbatch, without gradients;
2. compute the loss of all outputs, and its gradient with respect to them;
3. compute each microbatch again, and pull the gradient of its outputs back to the parameters.

The sum is the gradient of the whole computation, exactly. Memory holds the activations of one
microbatch, the outputs of all, and one tree of gradients. A batch of a single microbatch is
differentiated at once, which saves the second forward pass.

Where rows do not depend on each other, each device goes through its own rows, and gradients are
exchanged once, after the last microbatch.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from modernbert_jax.sharding import on_each_copy

from .objective import Microbatches, Objective, Sums

Join = Callable[[Any], Any]
"""Function from trained parameters to those of the whole model; see `Partition`."""


def gradients(
    objective: Objective, join: Join, trained: Any, microbatches: Microbatches
) -> tuple[Sums, Any]:
    """Sum the loss of a batch, and its gradient with respect to `trained`, over microbatches."""
    if not objective.coupled:
        return _separable(objective, join, trained, microbatches)
    compute = _at_once if microbatches.capacity == 1 else _coupled
    return compute(objective, join, trained, microbatches)


def _separable(
    objective: Objective, join: Join, trained: Any, microbatches: Microbatches
) -> tuple[Sums, Any]:
    def loss(trained, microbatch):
        params = join(trained)
        sums = objective.loss(params, objective.forward(params, microbatch), microbatch)
        return sums.loss, sums

    def gradient(trained, microbatch):
        grads, sums = jax.grad(loss, has_aux=True)(trained, microbatch)
        return sums, grads

    if microbatches.capacity == 1:  # no second copy of the gradients
        return gradient(trained, microbatches.at(0))

    def total(trained, microbatches):
        return _accumulate(lambda i: gradient(trained, microbatches.at(i)), microbatches)

    return _by_rows(objective, total, trained, microbatches, summed=True)


def _at_once(
    objective: Objective, join: Join, trained: Any, microbatches: Microbatches
) -> tuple[Sums, Any]:
    """A coupled loss of a batch with a single microbatch."""

    def loss(trained):
        params = join(trained)
        outputs = jax.tree.map(lambda x: x[None], objective.forward(params, microbatches.at(0)))
        sums = objective.loss(params, outputs, microbatches.coupled)
        return sums.loss, sums

    grads, sums = jax.grad(loss, has_aux=True)(trained)
    return sums, grads


def _coupled(
    objective: Objective, join: Join, trained: Any, microbatches: Microbatches
) -> tuple[Sums, Any]:
    def forward(trained, microbatch):
        return objective.forward(join(trained), microbatch)

    def loss(trained, outputs):
        sums = objective.loss(join(trained), outputs, microbatches.coupled)
        return sums.loss, sums

    def outputs(trained, microbatches):
        return outputs_of(functools.partial(forward, trained), microbatches)

    rows = microbatches._replace(whole=None)
    every = _by_rows(objective, outputs, trained, rows, summed=False)
    (direct, of_outputs), sums = jax.grad(loss, argnums=(0, 1), has_aux=True)(trained, every)

    def pulled_back(trained, rows):
        microbatches, of_outputs = rows

        def one(i):
            _, vjp = jax.vjp(lambda t: forward(t, microbatches.at(i)), trained)
            return vjp(jax.tree.map(lambda g: g[i], of_outputs))[0]

        return _accumulate(one, microbatches)

    indirect = _by_rows(objective, pulled_back, trained, (rows, of_outputs), summed=True)
    return sums, jax.tree.map(jnp.add, direct, indirect)


def _by_rows(
    objective: Objective, function: Callable[..., Any], trained: Any, rows: Any, *, summed: bool
) -> Any:
    """`function(trained, rows)`, on each device's own rows where these do not depend on others."""
    if not objective.independent_rows:
        return function(trained, rows)
    return on_each_copy(function, trained, rows, summed=summed)


def outputs_of(forward: Callable[[Any], Any], microbatches: Microbatches) -> Any:
    """Outputs of all microbatches, stacked [A, ...]; zeros of those that are not in use."""

    def write(i, every):
        return jax.tree.map(
            lambda all_, one: jax.lax.dynamic_update_index_in_dim(all_, one, i, 0),
            every,
            forward(microbatches.at(i)),
        )

    one = jax.eval_shape(lambda: forward(microbatches.at(0)))
    capacity = microbatches.capacity
    every = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), one)
    return jax.lax.fori_loop(0, microbatches.number, write, every)


def _accumulate(function: Callable[[Any], Any], microbatches: Microbatches) -> Any:
    """Sum of `function(i)` over the microbatches in use."""
    start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, 0))
    return jax.lax.fori_loop(
        0, microbatches.number, lambda i, total: jax.tree.map(jnp.add, total, function(i)), start
    )
