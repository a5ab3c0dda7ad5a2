"""Several processes as one program: waiting for each other, and gathering arrays."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


def together(what: str) -> None:
    """Wait until every process has reached this point.

    Args:
        what: the name of the point, the same in every process.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def whole(tree: Any, mesh: Mesh) -> Any:
    """Gather a tree of sharded arrays as numpy arrays in every process."""
    return jax.tree.map(np.asarray, _gather(mesh)(tree))


@functools.lru_cache(maxsize=4)
def _gather(mesh: Mesh) -> Callable[[Any], Any]:
    return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, P()))
