import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modernbert_jax.residual import stream


def stacked(depth, split):
    """Compiled gradient of a pre-norm stack, all of whose weights are trained."""

    def loss(kernels, x):
        for kernel in kernels:
            x = split(x)
            centred = x - x.mean(-1, keepdims=True)
            x = x + jnp.tanh(centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True)) @ kernel)
        return (x**2).sum()

    kernels = [jnp.zeros((64, 64))] * depth
    return jax.jit(jax.grad(loss)).lower(kernels, jnp.zeros((2, 32, 64))).compile().as_text()


def most_operands(text):
    return max(len(re.findall("%", args)) for args in re.findall(r" fusion\((.*?)\), kind", text))


def test_gradients_of_a_deep_stream_are_not_computed_anew_for_every_layer():
    assert most_operands(stacked(8, stream)) == most_operands(stacked(4, stream))


@pytest.mark.parametrize("entry", [1.0, np.nan, np.inf])
def test_stream_and_its_gradient_are_the_identity(entry):
    x = np.random.default_rng(0).standard_normal((2, 8, 4)).astype(np.float32)
    x[0, 0, 0] = entry
    out, back = jax.vjp(jax.jit(stream), x)
    np.testing.assert_array_equal(out, x)
    np.testing.assert_array_equal(jax.jit(back)(x)[0], x)


def test_on_two_devices_nothing_is_exchanged():
    """`Launch` exposes the CPU as two devices; each holds the gradient of its own rows."""
    program = """
import jax, numpy as np
from modernbert_jax.residual import stream
from modernbert_jax.sharding import MeshShape, rows_sharding
from modernbert_jax.cli.launch import Launch
Launch(cpu_devices=2).join()
mesh = MeshShape().make()
with jax.set_mesh(mesh):
    x = jax.device_put(np.arange(64.0, dtype=np.float32).reshape(2, 8, 4), rows_sharding(mesh))
    gradient = jax.jit(lambda x: jax.vjp(stream, x)[1](x)[0]).lower(x).compile()
    assert np.array_equal(gradient(x), x)
    text = gradient.as_text()
print(jax.device_count(), "while" in text, any(s in text for s in ("all-", "collective")))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["2", "True", "False"], done.stderr
