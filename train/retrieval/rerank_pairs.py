"""Pairs of query and document for a reranker: token ids that are joined when they are used."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.errors import UserError
from modernbert_jax.io.progress import Progress
from modernbert_jax.pipeline import Pipeline
from modernbert_jax.tokenizer import Tokenizer

from ..tasks import Problems
from .data import ExampleSet
from .losses import LossKind
from .texts import TextSet, Tokens, numbered, targets_of

_AT_ONCE = 4096
"""Texts that are tokenized between two updates of the progress."""


@dataclasses.dataclass(frozen=True, eq=False)
class PairTokens:
    """Token ids of all pairs of some texts. The pair of texts q and d has a number of its own."""

    texts: Tokens
    """Ids of the texts, without special tokens."""
    tokenizer: Tokenizer
    max_length: int
    """Longest pair in tokens, special tokens included; of a longer one the longer text is cut."""

    def numbers(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Numbers of pairs of texts, int64, of a shape that both broadcast to; -1 for none.

        Args:
            queries: numbers of texts.
            documents: numbers of texts; below 0 for none.
        """
        numbers = queries.astype(np.int64) * len(self.texts) + documents
        return np.where(documents >= 0, numbers, -1)

    def __getitem__(self, number: int) -> list[int]:
        query, document = divmod(int(number), len(self.texts))
        first, second = self.texts[query].tolist(), self.texts[document].tolist()
        return self.tokenizer.join_pair(first, second, self.max_length)

    def lengths(self, numbers: np.ndarray) -> np.ndarray:
        """Lengths of pairs in tokens, before they are cut, int64."""
        of_texts = self.texts.lengths
        special = sum(map(len, self.tokenizer.pair_template))
        return of_texts[numbers // len(of_texts)] + of_texts[numbers % len(of_texts)] + special


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PairSet(TextSet):
    """A data set of N queries with up to K documents each, as pairs.

    `drawn` documents of the other queries of a batch are scored for each query, too. Which ones
    follows from the seed and the examples of the batch, so from the seed and the step.
    """

    tokens: PairTokens  # type: ignore[assignment]  # it has no lengths of all pairs
    queries: np.ndarray
    """Numbers of the queries among `tokens.texts`, int64 [N]."""
    documents: np.ndarray
    """Numbers of the documents among `tokens.texts`, int64 [N, K]; -1 for none."""
    drawn: int = 0
    """Documents of other queries that are scored for a query."""
    seed: int = 0
    """Seed of the draws."""

    @property
    def width(self) -> int:
        return self.documents.shape[1] + self.drawn

    def of_batch(self, examples: np.ndarray) -> np.ndarray:
        own = self.documents[examples]
        if self.drawn:
            own = np.concatenate([own, self._others(examples, own)], axis=1)
        return self.tokens.numbers(self.queries[examples][:, None], own)

    def _others(self, examples: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Documents of other examples that are no known positives, int64 [n, drawn]; -1 for none.

        Args:
            examples: of the batch, [n].
            own: their documents, [n, K].
        """
        exists = own >= 0
        pool, counts = own[exists], exists.sum(1)
        queries, texts = self.texts[examples, 0], self.texts[examples, 1:][exists]
        starts = np.cumsum(counts) - counts
        rng = np.random.default_rng([self.seed, *examples.tolist()])
        others = np.full((len(own), self.drawn), -1, np.int64)
        for row, query, documents, start, count in zip(
            others, queries, own, starts, counts, strict=True
        ):
            left = len(pool) - count
            places = rng.choice(left, min(self.drawn, left), replace=False)
            places += np.where(places >= start, count, 0)
            chosen = pool[places]
            right = np.isin(chosen, documents) | self.is_positive(query, texts[places])
            row[: len(chosen)] = np.where(right, -1, chosen)
        return others

    def starts(self, numbers: np.ndarray) -> np.ndarray:
        return np.where(numbers >= 0, self.start[0], 0).astype(np.int32)

    @property
    def every_length(self) -> np.ndarray:
        lengths = self.tokens.lengths(self.sequences[self.sequences >= 0])
        return np.minimum(lengths, self.tokens.max_length)

    def lengths(self) -> list[list[int]]:
        documents = self.documents
        if self.drawn:
            rng, pool = np.random.default_rng(0), documents[documents >= 0]
            drawn = rng.choice(pool, (len(documents), self.drawn))
            documents = np.concatenate([documents, drawn], axis=1)
        return self._lengths(documents)

    def longest(self) -> list[list[int]]:
        documents = self.documents
        if self.drawn:
            pool = documents[documents >= 0]
            longest = pool[self.tokens.texts.lengths[pool].argmax()]
            drawn = np.full((len(documents), self.drawn), longest)
            documents = np.concatenate([documents, drawn], axis=1)
        return self._lengths(documents)

    def _lengths(self, documents: np.ndarray) -> list[list[int]]:
        numbers = self.tokens.numbers(self.queries[:, None], documents)
        lengths = np.minimum(self.tokens.lengths(numbers), self.tokens.max_length)
        return [row[exists].tolist() for row, exists in zip(lengths, numbers >= 0, strict=True)]


def pairs_of(
    dataset: ExampleSet,
    loss: LossKind,
    tokenizer: Tokenizer,
    model: ModernBertConfig,
    pipeline: Pipeline,
    *,
    drawn: int = 0,
    seed: int = 0,
) -> PairSet:
    """Tokenize a data set, each text once.

    Examples without targets get 1 for the positive and 0 for the others where the loss is one of
    labels.

    Args:
        dataset: the examples.
        loss: of the run.
        tokenizer: the model's.
        model: the architecture.
        pipeline: the reranker's, with its prompt and the longest pair.
        drawn: documents of other queries that are scored for a query.
        seed: of those draws.

    Raises:
        UserError: labels that the loss cannot take, a prompt that leaves no room, or ids that the
            model does not have.
    """
    kind, targets = dataset.targets, targets_of(dataset)
    if loss.name == "binary-cross-entropy":
        _check_labels(dataset)
    strings, texts = numbered(dataset)
    if kind == "none" and loss.graded and texts.shape[1] > 2:
        kind, targets = "scores", np.zeros((len(texts), texts.shape[1] - 1), np.float32)
        targets[:, 0] = 1
    prompt, limit = pipeline.prompt(None), model.max_position_embeddings
    length = min(pipeline.max_length or limit, limit)
    skip = len(tokenizer.encode([prompt])[0]) - 1 if prompt else 0
    if skip + sum(map(len, tokenizer.pair_template)) >= length:
        raise UserError(f"prompt {prompt!r} leaves no room in pairs of {length:,} tokens")
    used, queries = np.unique(texts[:, 0], return_inverse=True)
    exists = texts[:, 1:] >= 0
    others, where = np.unique(texts[:, 1:][exists], return_inverse=True)
    documents = np.full(exists.shape, -1, np.int64)
    documents[exists] = where + len(used)
    lower = pipeline.lower_case
    wanted = [prompt + strings[i] for i in used] + [strings[i] for i in others]
    wanted = [text.lower() for text in wanted] if lower else wanted
    ids: list[list[int]] = []
    with Progress(len(wanted), "text", delay=5.0) as progress:
        for first in range(0, len(wanted), _AT_ONCE):
            ids += tokenizer.encode_raw(wanted[first : first + _AT_ONCE])
            progress.update(f"tokenizing {dataset.name}", len(ids))
    tokens = PairTokens(Tokens.join(ids, model.vocab_size), tokenizer, length)
    sequences = tokens.numbers(queries[:, None], documents)
    return PairSet(
        name=dataset.name,
        kind=kind,
        strings=strings,
        texts=texts,
        sequences=sequences,
        tokens=tokens,
        start=np.array([skip], np.int32),
        targets=targets,
        cut=int((tokens.lengths(sequences[sequences >= 0]) > length).sum()),
        queries=queries,
        documents=documents,
        drawn=drawn,
        seed=seed,
    )


def _check_labels(dataset: ExampleSet) -> None:
    """Raise `UserError` for labels outside of 0 to 1, all together."""
    problems = Problems()
    for example in dataset.examples:
        wrong: Sequence[float] = [x for x in example.target if not 0 <= x <= 1]
        if wrong:
            problems.add(
                example.place,
                f"label {wrong[0]:g} must be 0 to 1 for loss binary-cross-entropy; mse takes any"
                " score",
            )
    problems.check()
