"""Folders of PEFT that hold an adapter and no model: recognised, to be named in errors."""

from pathlib import Path

from modernbert_jax.errors import UserError
from modernbert_jax.io.json_reader import read_json

CONFIG = "adapter_config.json"


def refusal(directory: Path) -> str:
    """What is wrong with the folder of an adapter, and the remedy."""
    try:
        base = read_json(directory / CONFIG).get("base_model_name_or_path")
    except UserError:
        base = None
    of = f" of {base!r:.120}" if isinstance(base, str) and base else ""
    return (
        f"{directory}: an adapter of PEFT{of}, not a whole model; merge it with"
        " `model.merge_and_unload()` and save that"
    )
