"""Ids and texts of rows, and what becomes of rows that have none."""

from collections.abc import Generator, Mapping
from typing import Any, NamedTuple

from modernbert_jax.errors import UserError

from ..corpus.sources import Source
from ..retrieval.data import ids
from ..tasks import Record
from ..tasks.records import columns_of
from . import rows
from .config import Embedding
from .inputs import Reader


class Text(NamedTuple):
    """A text with its id."""

    id: str
    text: str


def texts(
    reader: Reader, shard: int, options: Embedding, skipped: dict[str, int]
) -> Generator[Text]:
    """Yield the texts of a shard, in order.

    Empty texts count, ids may occur several times. The reasons why rows are left out are counted in
    `skipped`.

    Raises:
        UserError: a row without usable text or id, where the options say to stop at it.
    """
    for source, number, overall, values in reader.read(shard):
        place = f"{source.path}:{number + 1}"
        try:
            if isinstance(values, UserError):
                raise values
            yield _text(source, Record(place, values), overall, options)
        except UserError as error:
            if options.on_error == "stop":
                raise UserError(
                    f"{place}: {error}; --on-error skip leaves such rows out, and resumes"
                ) from None
            reason = str(error).split(" (")[0].split(" at byte")[0]
            skipped[reason] = skipped.get(reason, 0) + 1


def _text(source: Source, record: Record, overall: int, options: Embedding) -> Text:
    """The text of a record, and its id. Raises `UserError`."""
    if not isinstance(record.values, Mapping):
        raise UserError("not a JSON object")
    if source.format == "text":
        name = str(overall) if options.lines else source.path
        return Text(name, record.values[rows.TEXT])
    if options.field:
        for column in columns_of(options.field):
            record.need(column)
        text = record.text(options.field, allow_empty=True)
    else:
        record.need(next((name for name in ids.TEXTS if name in record.values), ids.TEXTS[0]))
        text = ids.row_of(record).text
    return Text(_id(record, overall, options.id_field), text)


def _id(record: Record, overall: int, column: str) -> str:
    """The id of a record: that of a column, of the first that is called like one, or its number."""
    name: Any = column or next((name for name in ids.IDS if name in record.values), None)
    return str(overall) if name is None else ids.text_of(record.need(name))
