"""Data sets ready for training: token ids of every text, prompts, and which texts are equal."""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.errors import UserError, did_you_mean, together
from modernbert_jax.io.progress import Progress
from modernbert_jax.tokenizer import Tokenizer

from .columns import check_keys
from .config import RetrievalConfig
from .data import ExampleSet, Targets, read_examples

T = TypeVar("T", bound=Hashable)
"""How the texts of a column become token ids, such as their prompt and length."""

_AT_ONCE = 4096
"""Texts that are tokenized between two updates of the progress."""


@dataclasses.dataclass(frozen=True, eq=False)
class Tokens:
    """Token ids of many texts in one array."""

    ids: np.ndarray
    """Ids of all texts, one after another, uint16 or int32 [tokens]."""
    starts: np.ndarray
    """Where each text begins, int64 [texts + 1]; the last entry is the end."""

    @classmethod
    def join(cls, documents: Sequence[Sequence[int]], vocabulary: int) -> "Tokens":
        """Join lists of ids of a vocabulary of some size. Raises `UserError` for unknown ids."""
        starts = np.zeros(len(documents) + 1, np.int64)
        starts[1:] = np.cumsum([len(ids) for ids in documents])
        dtype = np.uint16 if vocabulary <= 2**16 else np.int32
        joined = np.empty(starts[-1], dtype)
        for ids, start, end in zip(documents, starts, starts[1:], strict=False):
            if max(ids, default=0) >= vocabulary:
                raise UserError(
                    f"the tokenizer gives token id {max(ids)}; those of the model are 0 to"
                    f" {vocabulary - 1}"
                )
            joined[start:end] = ids
        return cls(joined, starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> np.ndarray:
        return self.ids[self.starts[number] : self.starts[number + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Lengths of the texts, int64 [texts]."""
        return np.diff(self.starts)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TextSet:
    """A data set of N examples of up to C texts, tokenized."""

    name: str
    kind: Targets
    """What the targets are."""
    strings: Sequence[str]
    """Different texts, without prompts."""
    texts: np.ndarray
    """Number of each text among `strings`, int32 [N, C]; -1 for none."""
    sequences: np.ndarray
    """Number of each text among `tokens`, int32 [N, C]; -1 for none."""
    tokens: Tokens
    """Texts with their prompts and special tokens."""
    start: np.ndarray
    """Tokens at the start of each of `tokens` that the model treats in a way of their own, int32:
    the prompt, which pooling leaves out, or in late interaction those that others attend to."""
    targets: np.ndarray
    """Label of each example or scores of its documents, float32 [N, M]; 0 for none."""
    cut: int
    """Number of texts that were cut."""

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def columns(self) -> int:
        """Largest number of texts of an example, C."""
        return self.texts.shape[1]

    @property
    def width(self) -> int:
        """Largest number of sequences of an example in a batch, J."""
        return self.sequences.shape[1]

    def of_batch(self, examples: np.ndarray) -> np.ndarray:
        """Numbers among `tokens` of the sequences of a batch, int [n, J]; -1 for none."""
        return self.sequences[examples]

    def is_positive(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Whether documents are positives of queries, the first documents of any example, bool.

        Args:
            queries: numbers of texts among `strings`.
            documents: numbers of texts, or below 0 for none, of a shape that both broadcast to.
        """
        pairs = queries.astype(np.int64) * len(self.strings) + documents
        at = np.minimum(np.searchsorted(self._positives, pairs), len(self._positives) - 1)
        return (documents >= 0) & (self._positives[at] == pairs)

    @functools.cached_property
    def _positives(self) -> np.ndarray:
        """Queries with their positives, as one number each, sorted, int64."""
        queries, positives = self.texts[:, 0].astype(np.int64), self.texts[:, 1]
        return np.unique(queries * len(self.strings) + positives)

    def starts(self, numbers: np.ndarray) -> np.ndarray:
        """`start` of sequences [...], int32; 0 for those below 0."""
        return np.where(numbers >= 0, self.start[np.maximum(numbers, 0)], 0)

    @property
    def every_length(self) -> np.ndarray:
        """Lengths of all different sequences, in tokens, int64."""
        return self.tokens.lengths

    def lengths(self) -> list[list[int]]:
        """Lengths of the sequences of each example, in tokens."""
        of_one = self.tokens.lengths
        return [of_one[row[row >= 0]].tolist() for row in self.sequences]

    def longest(self) -> list[list[int]]:
        """The same for the batch in which each example has the most tokens."""
        return self.lengths()


def read(config: RetrievalConfig, paths: Sequence[str], most: int = 0) -> list[ExampleSet]:
    """Read the data sets of a run.

    Args:
        config: the run.
        paths: of the data sets.
        most: number of the first examples of each that are read; 0 reads all.

    Raises:
        UserError: all problems of all files, or two data sets of one name.
    """
    read_one = functools.partial(
        read_examples,
        columns=config.columns,
        target="" if config.target == "none" else config.target or None,
        queries=config.queries or None,
        documents=config.documents or None,
        most=most,
    )
    sets: list[ExampleSet] = together(*(functools.partial(read_one, path) for path in paths))
    names = [dataset.name for dataset in sets]
    if twice := next((name for name in names if names.count(name) > 1), None):
        named = [p for p, name in zip(paths, names, strict=True) if name == twice]
        raise UserError(f"{named[0]} and {named[1]} are both called {twice!r}; rename one of them")
    return sets


def check_names(config: RetrievalConfig, sets: Sequence[ExampleSet]) -> None:
    """Raise `UserError` for prompts, lengths and losses of what no data set is called."""
    columns = {dataset.name: dataset.columns for dataset in sets}
    check_keys(config.prompts, "prompts", columns)
    check_keys(config.lengths, "lengths", columns)
    for name in config.losses:
        if name not in columns:
            raise UserError(
                f"losses has {name!r}, which is no data set; {did_you_mean(name, columns)}"
            )


def check_length(what: str, length: int, model: ModernBertConfig) -> None:
    """Raise `UserError` for a length above the model's; `what` is the message up to the number."""
    most = model.max_position_embeddings
    if length > most:
        raise UserError(f"{what} {length:,} tokens; the model supports {most:,} at most")


class Encoded(NamedTuple):
    """Token ids of some texts, with their special tokens."""

    ids: list[list[int]]
    start: list[int]
    """Number of tokens at the start of each text that `TextSet.start` holds."""
    cut: list[bool]
    """Whether a text was cut."""


def tokenize(
    config: RetrievalConfig,
    dataset: ExampleSet,
    tokenizer: Tokenizer,
    model: ModernBertConfig,
    lower_case: bool = False,
) -> TextSet:
    """Tokenize a data set, each text once for each prompt and length that it has.

    Args:
        config: the run, with prompts and a length above 0; see `initial_model.resolved`.
        dataset: the examples.
        tokenizer: the model's.
        model: the architecture, with the longest text and the number of token ids.
        lower_case: whether texts are converted to lower case.

    Raises:
        UserError: a length above the model's, a prompt that leaves no room for a text, or ids that
            the model does not have.
    """

    def encoded(some: Sequence[str], manner: tuple[str, int]) -> Encoded:
        prompt, length = manner
        some = [prompt + text for text in some]
        if lower_case:
            some, prompt = [text.lower() for text in some], prompt.lower()
        skipped = len(tokenizer.encode([prompt], max_length=length)[0]) - 1 if prompt else 0
        if max(skipped, 1) >= length - 1:
            what = f"prompt {prompt!r} leaves" if prompt else "special tokens leave"
            raise UserError(f"{what} no room in texts of {length:,} tokens")
        cut: list[bool] = []
        ids = tokenizer.encode(some, max_length=length, cut=cut)
        return Encoded(ids, [skipped] * len(ids), cut)

    def manner_of(column: int) -> tuple[str, int]:
        place = dataset.name, dataset.column(column), column
        return config.prompt(*place), longest(config, dataset, column, model)

    return text_set(dataset, model, manner_of, encoded)


def longest(
    config: RetrievalConfig, dataset: ExampleSet, column: int, model: ModernBertConfig
) -> int:
    """The longest text of a column in tokens. Raises `UserError` if it is above the model's."""
    length = config.length(dataset.name, dataset.column(column), column)
    check_length(f"{dataset.column(column)} takes texts of", length, model)
    return length


def text_set(
    dataset: ExampleSet,
    model: ModernBertConfig,
    manner_of: Callable[[int], T],
    encoded: Callable[[Sequence[str], T], Encoded],
) -> TextSet:
    """Tokenize a data set, each text once for each manner of its columns.

    Args:
        dataset: the examples.
        model: the architecture, with the number of token ids.
        manner_of: function from the number of a column to the manner of its texts.
        encoded: function that tokenizes texts in a manner.

    Raises:
        UserError: ids that the model does not have.
    """
    strings, texts = numbered(dataset)
    columns: dict[T, list[int]] = {}
    for column in range(texts.shape[1]):
        columns.setdefault(manner_of(column), []).append(column)
    sequences = np.full_like(texts, -1)
    ids: list[list[int]] = []
    start: list[int] = []
    cut = 0
    with Progress(texts.size, "text", delay=5.0) as progress:
        for manner, members in columns.items():
            own = texts[:, members]
            used, where = np.unique(own[own >= 0], return_inverse=True)
            numbers = np.full_like(own, -1)
            numbers[own >= 0] = where + len(ids)
            sequences[:, members] = numbers
            for first in range(0, len(used), _AT_ONCE):
                some = encoded([strings[i] for i in used[first : first + _AT_ONCE]], manner)
                ids += some.ids
                start += some.start
                cut += sum(some.cut)
                progress.update(f"tokenizing {dataset.name}", len(ids))
    return TextSet(
        name=dataset.name,
        kind=dataset.targets,
        strings=strings,
        texts=texts,
        sequences=sequences,
        tokens=Tokens.join(ids, model.vocab_size),
        start=np.array(start, np.int32),
        targets=targets_of(dataset),
        cut=cut,
    )


def numbered(dataset: ExampleSet) -> tuple[list[str], np.ndarray]:
    """The different texts of a data set, and their numbers in its examples; see `TextSet`."""
    numbers: dict[str, int] = {}
    texts = np.full((len(dataset), dataset.most_texts), -1, np.int32)
    for row, example in zip(texts, dataset.examples, strict=True):
        row[: len(example.texts)] = [numbers.setdefault(t, len(numbers)) for t in example.texts]
    return list(numbers), texts


def targets_of(dataset: ExampleSet) -> np.ndarray:
    """Targets of the examples, float32 [N, M], filled up with zeros."""
    width = max((len(example.target) for example in dataset.examples), default=0)
    targets = np.zeros((len(dataset), width), np.float32)
    for row, example in zip(targets, dataset.examples, strict=True):
        row[: len(example.target)] = example.target
    return targets
