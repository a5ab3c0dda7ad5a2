"""What a checkpoint is, in any format and at any place: digests of its parts."""

from typing import Any

from modernbert_jax.io import fingerprint

from . import names
from .checkpoint import Checkpoint


def identity(checkpoint: Checkpoint) -> dict[str, Any]:
    """Identify the model of a checkpoint, as JSON. Lazy arrays are read, one at a time.

    Returns:
        `weights`, the fingerprint of all parameters; and `architecture`, the keys of `config.json`
        that describe it. Another version of this library may write other keys: only those that two
        identities share can be compared.
    """
    leaves = {"/".join(path): leaf for path, leaf in names.flatten(checkpoint.params).items()}
    weights = fingerprint.of_arrays({name: leaves[name] for name in sorted(leaves)})
    return {"weights": weights, "architecture": checkpoint.config.to_hf()}
