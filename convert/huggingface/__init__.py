"""Format `hf`: directories of the transformers library, as versions 4 and 5 both load them."""

from .carried_files import CARRIED, read_carried, with_length
from .configuration import config_json, read_config
from .directory import DECODER, read, tie, write

__all__ = [
    "CARRIED",
    "DECODER",
    "config_json",
    "read",
    "read_carried",
    "read_config",
    "tie",
    "with_length",
    "write",
]
