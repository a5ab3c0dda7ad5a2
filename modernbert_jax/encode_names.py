"""The names that sentence-transformers has for options of `ModernBert.encode`."""

from collections.abc import Mapping
from typing import Any, TypedDict

from modernbert_jax.errors import UserError


class EncodeNames(TypedDict, total=False):
    """Keyword arguments of `SentenceTransformer.encode` that `ModernBert.encode` accepts."""

    normalize_embeddings: bool
    """True is `normalize=True`; False keeps the model's own normalisation."""
    truncate_dim: int | None
    """Number of the first numbers of a vector to keep; None is the model's own."""
    batch_size: int
    """Without effect: batches are sized by `batch_tokens`, which no result depends on."""
    show_progress_bar: bool | None
    """Without effect: there is no progress bar."""
    convert_to_numpy: bool
    """Vectors are numpy arrays; False is refused."""


def read(names: Mapping[str, Any], normalize: bool | None) -> tuple[bool | None, int | None]:
    """The options `normalize` and the number of numbers to keep, which these names ask for.

    Raises:
        TypeError: an unknown name, as Python does.
        UserError: contradictions, or a value that cannot be.
    """
    for name in names:
        if name not in EncodeNames.__annotations__:
            raise TypeError(f"encode() got an unexpected keyword argument {name!r}")
    if names.get("convert_to_numpy") is False:
        raise UserError("convert_to_numpy is False; vectors are numpy arrays")
    if names.get("normalize_embeddings"):
        if normalize is False:
            raise UserError("normalize and normalize_embeddings contradict each other")
        normalize = True
    width = names.get("truncate_dim")
    if width is not None and (type(width) is not int or width < 1):
        raise UserError(f"truncate_dim is {width!r}; it must be 1 or more")
    return normalize, width
