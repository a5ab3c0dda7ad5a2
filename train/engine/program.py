"""A learner's compiled programs, shared by all runs that train the same thing."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from modernbert_jax.io.progress import phase
from modernbert_jax.sharding import tree_shardings

from .distributed import whole
from .hyperparameters import Hyperparameters
from .objective import Batch
from .state import TrainState
from .step import Learner, Metrics


class Program:
    """Compiles a learner's functions once for each shape of batch."""

    def __init__(self, learner: Learner, mesh: Mesh):
        """Prepare for one mesh, which may be empty."""
        self.learner, self.mesh = learner, mesh
        self._shapes: Any = None
        self._initial: Callable | None = None
        self._steps: dict[Any, Callable] = {}

    def shapes(self) -> tuple[TrainState, Any]:
        """Shape, dtype and sharding of the state, and of the parameters that stay as they are."""
        if self._shapes is None:
            self._shapes = self.learner.shapes(self.mesh)
        return self._shapes

    def initial(self, params: Any, seed: int) -> tuple[TrainState, Any]:
        """`Learner.initial`, with every array created in its place."""
        if self._initial is None:
            self._initial = jax.jit(self.learner.initial, out_shardings=self._places(None))
        if params is not None and not self.mesh.empty:
            params = jax.device_put(params, tree_shardings(params, self.mesh))
        return self._initial(params, np.uint32(seed))

    def fixed(self, initial: Callable[[], Any]) -> Any:
        """The parameters that stay as they are, in their place, for a resumed run."""
        if not jax.tree.leaves(self.shapes()[1]):
            return {}

        def split(params: Any) -> Any:
            return self.learner.partition.split(params, jax.random.key(0))[1]

        return jax.jit(split, out_shardings=self._places(1))(initial())

    def _places(self, part: int | None) -> Any:
        """Shardings of `shapes()`, or of one part of it; None without a mesh."""
        if self.mesh.empty:
            return None
        shapes = self.shapes() if part is None else self.shapes()[part]
        return jax.tree.map(lambda x: x.sharding, shapes)

    def is_compiled(self, batch: Batch) -> bool:
        """Whether there is a program for batches of this shape."""
        return _shape_of(batch) in self._steps

    def compile(
        self, name: str, state: TrainState, fixed: Any, hyper: Hyperparameters, batch: Batch
    ) -> None:
        """Compile the step for batches of one shape; `name` is shown on the terminal."""
        with phase(f"compiling {name}"):
            step: Any = self.learner.train_step(state)
            lowered = step.lower(state, fixed, hyper, batch.arrays)
            self._steps[_shape_of(batch)] = lowered.compile()

    def step(
        self, state: TrainState, fixed: Any, hyper: Hyperparameters, batch: Batch
    ) -> tuple[TrainState, Metrics]:
        """Make one step with the program for the batch's shape."""
        return self._steps[_shape_of(batch)](state, fixed, hyper, batch.arrays)

    def join(self, trained: Any, fixed: Any) -> Any:
        """The whole model's parameters, on the devices."""
        return self._join(trained, fixed)

    def whole(self, trained: Any, fixed: Any) -> Any:
        """The whole model's parameters, as numpy arrays in every process."""
        return whole(self._join(trained, fixed), self.mesh)

    @functools.cached_property
    def _join(self) -> Callable:
        if self.learner.partition.is_whole:
            return lambda trained, fixed: trained
        return jax.jit(self.learner.partition.join)


def _shape_of(batch: Batch) -> Any:
    leaves, structure = jax.tree.flatten(batch.arrays)
    return structure, tuple((np.shape(x), jax.numpy.result_type(x)) for x in leaves)
