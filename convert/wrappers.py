"""Prefixes that wrappers of PyTorch give the names of tensors: found, left out, and said."""

import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from modernbert_jax.errors import UserError

ANYWHERE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts of a name from `torch.compile`, FSDP and activation checkpointing, which wrap modules of
any depth."""

OUTSIDE = ("module.", "base_model.model.")
"""Beginnings of all names, from (distributed) data parallelism and from merged PEFT models."""

_ADAPTERS = re.compile(r"\.(lora_[A-Za-z_]+|base_layer|modules_to_save|original_module)\.")

_ANYWHERE = re.compile(rf"(?:^|(?<=\.))(?:{'|'.join(ANYWHERE)})\.")

T = TypeVar("T")


def unwrapped(tensors: Mapping[str, T], origin: Any) -> dict[str, T]:
    """Tensors under the names of the module that was wrapped.

    Warns of the prefixes that are left out.

    Raises:
        UserError: adapters that are not merged, or two tensors of one name.
    """
    if adapters := [name for name in tensors if _ADAPTERS.search(f".{name}.")]:
        raise UserError(
            f"{origin}: {adapters[0]} belongs to an adapter that is not merged; save the model"
            " after `model = model.merge_and_unload()`"
        )
    renamed, prefixes = _renamed(tensors)
    if not prefixes:
        return dict(tensors)
    if len({*renamed.values()}) < len(renamed):
        raise UserError(f"{origin}: two tensors have one name without {', '.join(prefixes)}")
    warnings.warn(
        f"{origin}: the names of tensors are read without the prefix {' '.join(prefixes)}",
        stacklevel=2,
    )
    return {renamed[name]: tensor for name, tensor in tensors.items()}


def _renamed(names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The name of each tensor without prefixes, and those prefixes."""
    renamed, prefixes = {name: name for name in names}, []
    inner = {m[0]: None for name in renamed for m in _ANYWHERE.finditer(name)}
    if inner:
        renamed = {old: _ANYWHERE.sub("", new) for old, new in renamed.items()}
        prefixes += [*inner]
    again = bool(renamed)
    while again:
        again = False
        for prefix in OUTSIDE:
            if all(new.startswith(prefix) for new in renamed.values()):
                renamed = {old: new.removeprefix(prefix) for old, new in renamed.items()}
                prefixes.append(prefix)
                again = True
    return renamed, prefixes
