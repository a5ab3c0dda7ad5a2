"""Several processes as one program: waiting for each other, and gathering arrays."""

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
    gathered = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, P()))(tree)
    return jax.tree.map(np.asarray, gathered)
