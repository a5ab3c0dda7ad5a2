"""Several processes as one program: waiting for each other, and gathering arrays."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from modernbert_jax.errors import UserError

_MESSAGE = 1000
"""Bytes of an error's message that other processes repeat."""


def together(what: str) -> None:
    """Wait until every process has reached this point.

    Args:
        what: the name of the point, the same in every process.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def in_first(action: Callable[[], Any]) -> None:
    """Call a function in process 0; its `UserError` is raised in every process."""
    problem = ""
    if jax.process_index() == 0:
        try:
            action()
        except UserError as error:
            problem = str(error) or "wrong input"
    if jax.process_count() > 1:
        text = np.zeros(_MESSAGE, np.uint8)
        encoded = problem.encode()[:_MESSAGE]
        text[: len(encoded)] = np.frombuffer(encoded, np.uint8)
        sent = np.asarray(multihost_utils.broadcast_one_to_all(text), np.uint8)
        problem = problem or sent.tobytes().rstrip(b"\0").decode(errors="replace")
    if problem:
        raise UserError(problem)


def whole(tree: Any, mesh: Mesh) -> Any:
    """Gather a tree of sharded arrays as numpy arrays in every process."""
    return jax.tree.map(np.asarray, _gather(mesh)(tree))


@functools.lru_cache(maxsize=4)
def _gather(mesh: Mesh) -> Callable[[Any], Any]:
    return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, P()))
