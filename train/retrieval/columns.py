"""Roles of the columns of examples, and options whose keys name columns."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from modernbert_jax.errors import UserError, did_you_mean

T = TypeVar("T")

QUERY, DOCUMENT = "query", "document"
"""Roles of columns: the first one is the query, all others are documents."""


def of_column(values: Mapping[str, T], dataset: str, column: str, number: int) -> T | None:
    """The value of a column: that of the most particular key, or None.

    Args:
        values: by DATASET.COLUMN, DATASET.ROLE, COLUMN or ROLE.
        dataset: name of the data set.
        column: name of the column.
        number: number of the column, from 0.
    """
    role = role_of(number)
    keys = (f"{dataset}.{column}", f"{dataset}.{role}", column, role)
    return next((values[key] for key in keys if key in values), None)


def check_keys(
    values: Mapping[str, Any], option: str, datasets: Mapping[str, Sequence[str]]
) -> None:
    """Raise `UserError` for keys of `of_column` that mean no column of any data set."""
    names = {QUERY, DOCUMENT}
    for dataset, columns in datasets.items():
        names |= {*columns, *(f"{dataset}.{x}" for x in (QUERY, DOCUMENT, *columns))}
    for key in values:
        if key not in names:
            raise UserError(f"{option} has {key!r}, which is no column; {did_you_mean(key, names)}")


def role_of(number: int) -> str:
    """The role of a column: the first one holds queries, all others hold documents."""
    return DOCUMENT if number else QUERY
