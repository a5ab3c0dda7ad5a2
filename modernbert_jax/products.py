"""Products of vectors with kernels, whose gradients are in the form that XLA computes fast on CPU.

Left to itself, XLA's CPU compiler computes the gradient of a kernel in one of two slow ways: as a
product along the columns of both operands, at half the rate of one along rows, or with the
transposition merged into the elementwise work before it, which then reads memory across. Here the
gradients of the products are stored first, and x is transposed once for all kernels.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from modernbert_jax.platform import device
from modernbert_jax.residual import stored
from modernbert_jax.sharding import divides_only_rows


def products(x: jax.Array, kernels: jax.Array, forward_mode: bool) -> Sequence[jax.Array]:
    """x [..., D] times each of several kernels [P, D, E]: P arrays [..., E].

    Args:
        x: vectors, [B, T, D] where rows are divided on a mesh.
        kernels: in the dtype of x.
        forward_mode: whether forward-mode and higher derivatives must stay available, at the price
            of slower gradients on CPU.
    """
    if forward_mode or device()[0] != "cpu" or not divides_only_rows():
        return [x @ kernel for kernel in kernels]
    return _reverse_only(x, kernels)


@jax.custom_vjp
def _reverse_only(x: jax.Array, kernels: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(x @ kernel for kernel in kernels)


def _forward(x, kernels):
    return _reverse_only(x, kernels), (x, kernels)


def _backward(residuals, gradients):
    x, kernels = residuals
    gradients = stored(gradients)
    columns = lax.optimization_barrier(_flat(x).T)
    of_x = sum(g @ kernel.T for g, kernel in zip(gradients, kernels, strict=True))
    return of_x, jnp.stack([columns @ _flat(g) for g in gradients])


def _flat(x):
    return x.reshape(-1, x.shape[-1])


_reverse_only.defvjp(_forward, _backward)
