"""Retrieval training from start to end: the run and its files."""

from typing import Any

from modernbert_jax.errors import UserError

from .config import RetrievalConfig


def train(
    config: RetrievalConfig, profile_steps: tuple[int, int] | None = None
) -> dict[str, Any] | None:
    """Run or resume a run, and export the best model at its end.

    Args:
        config: the run.
        profile_steps: first and last step that jax's profiler traces into `profile/`.

    Returns:
        The result, or None if the run was asked to stop; then a checkpoint has been saved.

    Raises:
        UserError: a configuration, data or folder that cannot be used.
        RunStopped: too many consecutive steps were skipped.
    """
    raise UserError(f"{config.kind} models cannot be trained yet")
