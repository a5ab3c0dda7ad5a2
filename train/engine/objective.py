"""The objective: everything about a training run that the engine does not know by itself."""

import abc
import functools
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from modernbert_jax.packing import Rows


class Sums(NamedTuple):
    """A loss and its metrics, summed over whatever is counted; add freely, divide by `count` once.

    Because the division comes last, the mean over a batch does not depend on how the batch is
    packed or divided into microbatches.
    """

    loss: jax.Array
    """Float32 scalar."""
    count: jax.Array  # type: ignore[assignment]  # a field, not the method of tuples
    """Number of things that the loss averages (tokens, examples, windows, or weights), float32."""
    metrics: Mapping[str, jax.Array] = {}
    """Further sums over the same things, by the name of their mean in `metrics.jsonl`."""


class Batch(NamedTuple):
    """The batch of one step, on the devices."""

    arrays: Any
    """Pytree of arrays, placed on the mesh."""
    counts: Mapping[str, Any] = {}
    """Counts of the host that the meter adds up: `capacity` (tokens, padding included),
    `examples`, or anything else that `Objective.row` reads."""


class Microbatches(NamedTuple):
    """A batch as the step loops over it."""

    stack: Any
    """Pytree of arrays [A, ...], one entry for each microbatch; random keys included."""
    used: jax.Array | None = None
    """Number of microbatches that hold anything, the first ones of A; None means all."""
    whole: Any = None
    """Pytree that a coupled loss reads in place of `stack`; None is the stack."""

    @property
    def coupled(self) -> Any:
        """What a coupled loss reads of the batch."""
        return self.stack if self.whole is None else self.whole

    @property
    def capacity(self) -> int:
        """Number of microbatches in the stack, A."""
        return jax.tree.leaves(self.stack)[0].shape[0]

    @property
    def number(self) -> jax.Array | int:
        """Number of microbatches that hold anything."""
        return self.capacity if self.used is None else self.used

    def at(self, i: jax.Array | int) -> Any:
        """Return one microbatch."""
        return jax.tree.map(lambda x: x[i], self.stack)


class Evaluation(NamedTuple):
    """The result of an evaluation."""

    metrics: Mapping[str, Any]
    """For `metrics.jsonl`; `eval_loss` is one of them."""
    score: float
    """Higher is better; decides on the best model and on early stopping."""
    text: str = ""
    """A line for the terminal; empty shows nothing."""


class Objective(abc.ABC):
    """Model, data, loss and evaluation of a run. The engine does everything else.

    `coupled = False`: the loss of a batch is the sum of the losses of its microbatches, and `loss`
    is called with the outputs of each. `coupled = True`: the loss looks at the outputs of the whole
    batch (in-batch negatives), and `loss` is called once, with outputs and microbatches stacked
    along a first axis [A, ...], or with `Microbatches.whole` for the microbatches. `forward` must
    then compute the same when it is called twice: every random number follows from keys in the
    microbatch.

    `init`, `microbatches`, `forward` and `loss` are pure and traced; the other methods run on the
    host.
    """

    coupled: ClassVar[bool] = False
    if TYPE_CHECKING:  # subclasses have fields, attributes or properties: they are only read

        @property
        def name(self) -> str:
            """Value of `stage` in `metrics.jsonl`."""

        @property
        def steps(self) -> int:
            """How many batches there are to train on, one a step."""

        @property
        def eval_every(self) -> int:
            """Steps between evaluations, the last one apart; 0 evaluates only at the end."""

        @property
        def independent_rows(self) -> bool:
            """Whether each device can compute its own rows, and add up their gradients, alone.

            The arrays of microbatches are then [A, B, ...] with B rows, or [A]. What `forward`
            computes of a row, and a loss that is not coupled, follow from its row alone.
            """
    else:
        name = "train"
        eval_every = 0
        independent_rows = False

    @abc.abstractmethod
    def init(self, key: jax.Array) -> Any:
        """Draw the parameters that the run starts from where none are given."""

    @abc.abstractmethod
    def batch(self, step: int) -> Any:
        """Return the batch of a step, counted from 0: arrays that follow from (seed, step)."""

    @abc.abstractmethod
    def forward(self, params: Any, microbatch: Any) -> Any:
        """Compute the outputs of a microbatch that the loss needs."""

    @abc.abstractmethod
    def loss(self, params: Any, outputs: Any, microbatch: Any) -> Sums:
        """Compute the loss of outputs; of the whole batch, stacked, if `coupled`."""

    def microbatches(self, batch: Any, key: jax.Array) -> Microbatches:
        """Divide the batch of a step; `key` is the step's own. Default: a single microbatch."""
        return Microbatches(jax.tree.map(lambda x: jnp.asarray(x)[None], batch))

    def stream(self, step: int) -> Generator[Batch]:
        """Yield the batches from a step on, placed on the mesh. Default: `batch`, one by one."""
        while True:
            yield Batch(jax.tree.map(jnp.asarray, self.batch(step)))
            step += 1

    def evaluate(self, params: Any, step: int) -> Evaluation | None:
        """Evaluate the model's parameters after `step` steps; None where nothing is evaluated."""
        return None

    def row(self, step: int, counts: Mapping[str, Any]) -> dict[str, Any]:
        """Return more entries for the row of a step in `metrics.jsonl`.

        `counts` has the sums of `Batch.counts` since the last row; it is empty for evaluations.
        """
        return {}

    def describe(self, batch: Batch) -> str:
        """Name what is compiled for batches of one shape."""
        return self.name

    def metadata(self, step: int) -> dict[str, Any]:
        """Return the JSON that makes the checkpoint of a step a model of its own."""
        return {}

    def flops_per_token(self, length: float) -> float | None:
        """FLOPs of a forward pass for a token that attends to `length` tokens; None if unknown."""
        return None


def init_params(module: nn.Module, key: jax.Array) -> Any:
    """Initialise a module that takes token ids, segment ids and positions. Traceable.

    The dummy input has enough rows and tokens for the mesh; nothing is computed with it.
    """
    mesh = jax.sharding.get_abstract_mesh()
    ids = jnp.zeros((mesh.size, 8 * mesh.size) if mesh.shape else (1, 8), jnp.int32)
    return module.init(key, ids, ids, ids)["params"]


def draw_params(module: nn.Module, key: jax.Array) -> Any:
    """Initialise a module outside of a step: numpy arrays, whole in every process.

    Compiled once for all keys.
    """
    return jax.tree.map(np.asarray, _draw(module, jax.sharding.get_mesh())(key))


@functools.lru_cache(maxsize=4)
def _draw(module: nn.Module, mesh: Mesh) -> Callable[[jax.Array], Any]:
    whole = None if mesh.empty else NamedSharding(mesh, P())
    return jax.jit(functools.partial(init_params, module), out_shardings=whole)


def packing_counts(batch: Any) -> dict[str, jax.Array]:
    """Count the tokens of all packed rows in a batch, and the pairs of tokens of one document.

    A document of n tokens has n^2 pairs, the sum of its first n odd numbers.
    """
    leaves = jax.tree.leaves(batch, is_leaf=lambda x: isinstance(x, Rows))
    tokens, pairs = jnp.zeros([], jnp.int32), jnp.zeros([], jnp.float32)
    for rows in (leaf for leaf in leaves if isinstance(leaf, Rows)):
        tokens += (rows.segment_ids > 0).sum(dtype=jnp.int32)
        pairs += jnp.where(rows.segment_ids > 0, 2.0 * rows.positions + 1, 0.0).sum()
    return {"tokens": tokens, "pairs": pairs}


def added_counts(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Add two mappings of counts entry by entry; what one of them lacks counts as 0."""
    return {key: np.add(a.get(key, 0), b.get(key, 0)) for key in {**a, **b}}


Schedule = Callable[[Any, jax.Array], jax.Array]
"""Learning rate from hyperparameters (`Hyperparameters`) and the steps since the phase began."""
