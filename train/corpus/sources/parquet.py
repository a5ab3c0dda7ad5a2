"""Parquet files with a column of texts or of token ids."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError, first_line

from .document import Bad, Damaged, Document, Piece, decoded

_BATCH = 1024
IDS = "input_ids"


def row_groups(path: Path) -> int:
    """Number of row groups, by which a file can be split; 1 if the file cannot be read."""
    import pyarrow
    import pyarrow.parquet

    try:
        return max(1, pyarrow.parquet.ParquetFile(path).num_row_groups)
    except (pyarrow.ArrowException, OSError):
        return 1


def checked(batch):
    """The batch or column, if its values are inside it.

    Damaged offsets would otherwise read beyond the memory, which ends the process. Raises
    `pyarrow.ArrowInvalid`.
    """
    batch.validate(full=True)
    return batch


def read(path: Path, piece: Piece, field: str) -> Iterator[Document | Bad]:
    """Yield the rows of a piece's row groups, in order."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            column = _column(piece.source.path, file.schema_arrow, field)
            groups = range(file.num_row_groups)[piece.start : piece.stop]
            number = sum(file.metadata.row_group(i).num_rows for i in range(piece.start))
            for batch in file.iter_batches(_BATCH, list(groups), columns=[".".join(column)]):
                for value in _values(_nested(batch.column(0), column[1:])):
                    number += 1
                    if value is None:
                        yield Bad(f", row {number}", f"no {'.'.join(column)}")
                    elif isinstance(value, bytes):
                        yield decoded(value, f", row {number}")
                    elif None in value:
                        yield Bad(f", row {number}", f"{'.'.join(column)} with a missing id")
                    else:
                        yield np.asarray(value)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise Damaged(first_line(error)) from None


def _column(path: str, schema, field: str) -> tuple[str, ...]:
    """Names that lead to the texts, or else to token ids. Raises `UserError` if it has neither."""
    import pyarrow.types as types

    for name in (field, IDS):
        keys, kind = _find(schema, name)
        if kind is None:
            continue
        kind = kind.value_type if types.is_dictionary(kind) else kind
        texts = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
        lists = (types.is_list, types.is_large_list, types.is_fixed_size_list)
        if any(is_kind(kind) for is_kind in texts):
            return keys
        if any(is_kind(kind) for is_kind in lists) and types.is_integer(kind.value_type):
            return keys
        raise UserError(f"{path}: column {name!r} holds {kind}; it must hold text or token ids")
    raise UserError(
        f"{path}: has no column {field!r}, only {', '.join(schema.names)}; name one with --field"
    )


def _find(schema, name: str) -> tuple[tuple[str, ...], Any]:
    """A column's keys and type; dots lead into structs. The type is None if there is none."""
    import pyarrow.types as types

    if name in schema.names:
        return (name,), schema.field(name).type
    first, *rest = name.split(".")
    kind = schema.field(first).type if first in schema.names else None
    for key in rest:
        if kind is None or not types.is_struct(kind) or kind.get_field_index(key) < 0:
            return (), None
        kind = kind.field(key).type
    return (first, *rest), kind


def _nested(column, keys: Sequence[str]):
    """The values inside structs; None where one of them is."""
    import pyarrow.compute as compute

    for key in keys:
        column = compute.struct_field(column, key)
    return column


def _values(column) -> list:
    """Texts as undecoded bytes, which may not be UTF-8, and token ids as lists."""
    import pyarrow

    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
        column = column.cast(pyarrow.large_binary())
    return checked(column).to_pylist()
