"""MaxSim of packed rows beside the product of all tokens: errors, times and memory."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modernbert_jax.scoring import Texts, interaction, maxsim

from .. import timing
from ..registry import register
from ..results import FailedCheckError, Number, Numbers, Result, attempt
from ..scale import Scale

EINSUM = "einsum"
"""Name of the product of all tokens, of documents that have a row each."""

LIMIT = 2e-2
"""Largest error relative to the einsum, root mean squares over an array; both in bfloat16."""

PRODUCTS = 3.0
"""Operations of both passes relative to the forward pass, without those that are repeated."""


class Batch(NamedTuple):
    """Queries and as many documents, with the sizes of PyLate's benchmark."""

    texts: int
    query: int = 32
    document: int = 180
    row: int = 2048
    width: int = 128

    @property
    def texts_of_row(self) -> int:
        """Documents of a packed row."""
        return self.row // self.document

    @property
    def flops(self) -> float:
        """Operations of the forward pass."""
        return 2.0 * self.texts**2 * self.query * self.document * self.width


def batches(scale: Scale) -> tuple[Batch, ...]:
    """Batches to compute; the larger one may not fit as an einsum."""
    return (Batch(4, 4, 20, 64, 16),) if scale.tiny else (Batch(256), Batch(1024))


@register("maxsim_times", group="interaction", order=65, seconds=40)
def maxsim_times(scale: Scale) -> Iterator[Result]:
    """Both passes of the einsum and of every implementation for the device."""
    for batch in batches(scale):
        arrays = operands(batch, scale)
        expected: list[np.ndarray] = []
        for name, program in timing.compile_all(programs(batch, scale)):
            labels = {"texts": f"{batch.texts:,}", "implementation": name}
            measure = partial(_measured, batch, program, arrays, expected, name == EINSUM, scale)
            yield attempt(f"{batch.texts} {name}", labels, measure, peer=name == EINSUM)


def programs(batch: Batch, scale: Scale) -> Iterator[tuple[str, timing.Program]]:
    """Both passes of the einsum, and of what computes MaxSim on the device."""
    shapes = jax.eval_shape(lambda: operands(batch, scale))
    for name in (EINSUM, *interaction.IMPLEMENTATIONS):
        kernel = name.startswith("pallas")
        if name == "dense" or (kernel and not name.endswith(_KERNELS[scale.platform])):
            continue  # the oracle, and what is for other devices
        yield name, timing.Program(partial(both, batch, name), shapes)


_KERNELS = {"cpu": "nothing", "gpu": "triton", "tpu": "tpu"}


def operands(batch: Batch, scale: Scale) -> tuple[jax.Array, ...]:
    """Unit vectors of queries and documents, [texts, tokens, E], and the scores' gradient."""
    dtype = "float32" if scale.tiny else "bfloat16"
    sizes = (batch.query, batch.document)
    keys = jax.random.split(jax.random.key(0), 3)
    vectors = [
        jax.random.normal(key, (batch.texts, size, batch.width))
        for key, size in zip(keys, sizes, strict=False)
    ]
    q, d = ((x / jnp.linalg.norm(x, axis=-1, keepdims=True)).astype(dtype) for x in vectors)
    return q, d, jax.random.normal(keys[2], (batch.texts, batch.texts))


def both(batch: Batch, name: str, q, d, gradient) -> tuple[jax.Array, ...]:
    """Scores [texts, texts], and the gradients of q and d."""
    scores, pull = jax.vjp(_einsum if name == EINSUM else partial(_packed, batch, name), q, d)
    return scores, *pull(gradient)


def _einsum(q, d):
    products = jnp.einsum("qie,dje->qdij", q, d, preferred_element_type=jnp.float32)
    return products.max(-1).sum(-1)


def _packed(batch: Batch, name: str, q, d):
    together = batch.texts_of_row
    rows = -(-batch.texts // together)
    d = jnp.pad(d, ((0, rows * together - batch.texts), (0, 0), (0, 0)))
    used = together * batch.document
    d = d.reshape(rows, used, batch.width)
    d = jnp.pad(d, ((0, 0), (0, batch.row - used), (0, 0)))
    ids = np.zeros((rows, batch.row), np.int32)
    ids[:, :used] = np.repeat(np.arange(1, together + 1), batch.document)
    numbers = np.minimum(np.arange(rows * together), batch.texts).reshape(rows, together)
    return maxsim(
        q,
        jnp.ones(q.shape[:2], jnp.int32),
        d,
        jnp.asarray(ids),
        name,
        queries=Texts(np.arange(batch.texts)[:, None], batch.texts),
        documents=Texts(numbers, batch.texts),
    )


def _measured(
    batch: Batch,
    program: Callable | Exception,
    arrays: tuple[jax.Array, ...],
    expected: list[np.ndarray],
    reference: bool,
    scale: Scale,
) -> Numbers:
    """Time, rate and memory; errors where there is a reference, which is kept."""
    run = timing.ready(program)
    outputs = run(*arrays)
    numbers: Numbers = {}
    if reference:
        expected.extend(np.asarray(x, np.float32) for x in outputs)
    for output, x, exact in zip(("scores", "dq", "dd"), outputs, expected, strict=False):
        off = np.asarray(x, np.float32) - exact
        error = float(np.sqrt(np.square(off).mean() / np.square(exact).mean()))
        numbers[output] = Number(error, "")
    wrong = [name for name, n in numbers.items() if not n.value <= LIMIT]
    if wrong:
        raise FailedCheckError(f"{', '.join(wrong)}: more than {LIMIT:g} off", numbers)
    taken = timing.seconds(lambda: run(*arrays), scale.timed_seconds, scale.repeats)
    memory = program.memory_analysis()  # type: ignore[union-attr]
    return numbers | {
        "both": Number(1e3 * taken, "ms"),
        "rate": Number(PRODUCTS * batch.flops / taken / 1e12, "TFLOP/s"),
        "temporary": Number(memory.temp_size_in_bytes / 1e9, "GB"),
    }
