"""`Service`: what a served model can do, over the batcher that all requests share."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import numpy as np

from modernbert_jax import ranges
from modernbert_jax.errors import UserError
from modernbert_jax.language_modelling import likeliest, spelling
from modernbert_jax.late_interaction import pool_tokens
from modernbert_jax.pipeline import Normalize
from modernbert_jax.pretrained import ModernBert
from modernbert_jax.scoring.similarity import unit
from modernbert_jax.splade import SparseVector, sparse
from modernbert_jax.tokenizer import Tokenizer

from .batcher import Batcher
from .faults import Fault, invalid, too_large, unsupported
from .metrics import Metrics
from .programs import MASKS, Programs, normalizes_last
from .reading import Documents, Reader, Reading, Sequences
from .settings import Settings

Kind = Literal["embedding", "late-interaction", "sparse", "reranker", "classifier"]

Result = TypeVar("Result")

_NUMBERS = 2**23
"""Numbers of a response with vectors of tokens at most: about 90 MB of JSON."""


class Service:
    """A model with its compiled programs, its limits and its queue.

    Attributes:
        bert: the model.
        name: of the model, as clients see it.
        settings: limits.
        reader: reads texts.
        programs: compiled programs.
        batcher: runs documents; the application starts and closes it.
        metrics: numbers of the server.
    """

    def __init__(
        self,
        bert: ModernBert,
        name: str,
        settings: Settings | None = None,
        programs: Programs | None = None,
    ):
        """A service of a model; `programs.compile` has to be called before it is used.

        Args:
            bert: the model.
            name: of the model, as clients see it.
            settings: limits.
            programs: compiled already; None makes new ones.

        Raises:
            UserError: a model without tokenizer, of a kind that is not served, or a bad limit.
        """
        self.bert, self.name, self.settings = bert, name, settings or Settings()
        ranges.check(self.settings)
        self.kind = kind_of(bert)
        self.reader = Reader(bert, self.settings)
        longest, size = self.reader.longest_document, self.settings.batch_tokens
        self.programs = programs or Programs(bert, longest, size)
        self.metrics = Metrics()
        self.batcher = Batcher(self.programs, self.settings, self.metrics)

    @property
    def fills_masks(self) -> bool:
        """Whether the model has a masked-LM head whose masks are served."""
        return self.bert.head == "masked_lm" and "tokens" in self.programs.lanes

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of a classifier's or reranker's scores, in order."""
        count = self.bert.text_model.score_width
        own = self.bert.labels
        return own if len(own) == count else tuple(f"LABEL_{i}" for i in range(count))

    async def vectors(
        self,
        inputs: Sequences,
        reading: Reading,
        normalize: bool = True,
        dimensions: int | None = None,
    ) -> tuple[list[np.ndarray], int]:
        """Vectors of texts, float32 [E] each, and the number of their tokens.

        Args:
            inputs: texts or lists of token ids.
            reading: how they are read.
            normalize: whether every vector has length 1.
            dimensions: numbers of a vector to keep; None is the model's own.
        """
        self._need("embedding")
        width = self.programs.lanes["main"].width
        if dimensions is not None and dimensions > width:
            raise invalid("dimensions", f"must be 1 to {width:,}")
        steps = self.bert.pipeline.steps if self.bert.pipeline else ()
        within = any(isinstance(step, Normalize) for step in steps)
        if not normalize and within and not normalizes_last(self.bert):
            raise invalid("normalize", "cannot be false: the model normalises between layers")
        read, values = await self._run("main", inputs, reading)
        own = self.bert.pipeline.truncate_dim if self.bert.pipeline else None
        array = np.stack(values)[:, : dimensions or own or width]
        return list(unit(array) if normalize else array), read.tokens

    async def token_vectors(
        self, inputs: Sequences, reading: Reading
    ) -> tuple[list[np.ndarray], int]:
        """Vectors of the tokens of texts, float32 [tokens, E] each, and the number of tokens.

        They are those of late interaction, or else the hidden states after the final norm.
        """
        self._need("embedding", "late-interaction")
        lane = "tokens" if self.kind == "embedding" else "main"
        read, values = await self._run(lane, inputs, reading, _NUMBERS)
        pooling = self.bert.pipeline.token_pooling if self.bert.pipeline else None
        if lane == "main" and pooling is not None and not reading.is_query:
            values = await _in_thread(lambda: [pool_tokens(x, pooling) for x in values])
        return values, read.tokens

    async def sparse_vectors(
        self, inputs: Sequences, reading: Reading
    ) -> tuple[list[SparseVector], int]:
        """Sparse vectors of texts, and the number of their tokens."""
        self._need("sparse")
        read, values = await self._run("main", inputs, reading)
        return [sparse(value) for value in values], read.tokens

    async def similarities(
        self, source: str, sentences: list[str], reading: Reading
    ) -> list[float]:
        """The model's own similarity of a text with each of several; as queries, documents."""
        query = Reading(**{**vars(reading), "is_query": True})
        both: list[Any]
        if self.kind == "late-interaction":
            one, _ = await self.token_vectors([source], query)
            several, _ = await self.token_vectors(sentences, reading)
            both = [one, several]
        elif self.kind == "sparse":
            vectors, _ = await self.sparse_vectors([source, *sentences], reading)
            both = [vectors[:1], vectors[1:]]
        else:
            own = normalizes_last(self.bert)
            dense, _ = await self.vectors([source, *sentences], reading, normalize=own)
            both = [np.stack(dense[:1]), np.stack(dense[1:])]
        scores = await _in_thread(lambda: self.bert.similarity(*both))
        return scores[0].tolist()

    async def scores(self, texts: Sequences, reading: Reading, raw: bool) -> tuple[np.ndarray, int]:
        """Scores of texts or pairs, float32 [n, labels], and the number of their tokens.

        Args:
            texts: of the classifier, or pairs of query and document of a reranker.
            reading: how they are read.
            raw: whether scores are those of the last layer, without the activation.
        """
        self._need("reranker", "classifier")
        read, values = await self._run("main", texts, reading)
        scores = np.stack(values)
        return (scores if raw else self._activated(scores)), read.tokens

    async def ranking(
        self, query: str, texts: list[str], reading: Reading, raw: bool
    ) -> list[tuple[int, float]]:
        """Texts by their relevance to a query: their indices with scores, the best first."""
        if self.kind == "late-interaction":
            scores = np.asarray(await self.similarities(query, texts, reading))
        else:
            self._need("reranker")
            values, _ = await self.scores([(query, text) for text in texts], reading, raw)
            scores = values[:, 0]
        order = np.argsort(-scores, kind="stable")
        return [(int(i), float(scores[i])) for i in order]

    async def masks(self, text: str, reading: Reading, top_k: int) -> list[list[dict[str, Any]]]:
        """For each mask of a text its candidates: score, token, token_str and the text with it."""
        if not self.fills_masks:
            raise unsupported(f"the model has no masked-LM head (its head is {self.bert.head!r})")
        mask = self.reader.tokenizer.mask_id
        read, values = await self._run("tokens", [text], reading)
        ids = np.asarray(read.documents[0].ids)
        places = np.flatnonzero(ids == mask)
        if not places.size:
            raise invalid("inputs", f"has no {self.reader.tokenizer.token(mask)} to fill")
        if len(places) > MASKS:
            raise too_large(
                f"inputs has {len(places):,} masks; at most {MASKS} are filled", "inputs"
            )

        def filled() -> list[list[dict[str, Any]]]:
            best = likeliest(self.programs.mask_scores(values[0][places]), top_k)
            return _candidates(self.reader.tokenizer, ids, places, best)

        return await _in_thread(filled)

    async def _run(
        self, lane: str, inputs: Sequences, reading: Reading, numbers: int = sys.maxsize
    ) -> tuple[Documents, list[np.ndarray]]:
        """The documents of a request, and their results of at most so many numbers per token."""
        self.metrics.texts.add(len(inputs))
        read = await _in_thread(lambda: self.reader.documents(inputs, reading))
        if read.tokens * self.programs.lanes[lane].width > numbers:
            raise too_large(f"vectors of {read.tokens:,} tokens are too much; send fewer texts")
        skip = read.skip if self.programs.lanes[lane].skips else 0
        values = await self.batcher.submit(lane, read.documents, skip)
        if not all(np.isfinite(value).all() for value in values):
            raise Fault(500, "the model's results are not finite; is it damaged?", "Backend")
        return read, values

    def _activated(self, logits: np.ndarray) -> np.ndarray:
        """Scores [n, labels] with the model's activation."""
        named = self.bert.pipeline.activation if self.bert.pipeline else None
        if named is None and logits.shape[-1] > 1:
            if self.bert.problem_type == "multi_label_classification":
                return 1 / (1 + np.exp(-logits.astype(np.float64)))
            powers = np.exp(logits - logits.max(-1, keepdims=True))
            return powers / powers.sum(-1, keepdims=True)
        return self.programs.activated(logits)

    def _need(self, *kinds: Kind) -> None:
        if self.kind not in kinds:
            wanted = " or ".join(kind.replace("-", " ") for kind in kinds)
            raise unsupported(f"the model is of kind {self.kind}; this route needs {wanted}")


def _candidates(
    tokenizer: Tokenizer,
    ids: np.ndarray,
    places: np.ndarray,
    best: list[list[tuple[int, float]]],
) -> list[list[dict[str, Any]]]:
    """Candidates of each mask with the text that has them in its place."""
    ends = [tokenizer.role_id(role) for role in ("cls", "sep")]

    def filled(place: int, token: int) -> str:
        changed = ids.copy()
        changed[place] = token
        return tokenizer.decode([i for i in changed.tolist() if i not in ends])

    return [
        [
            {
                "score": score,
                "token": token,
                "token_str": spelling(tokenizer, token),
                "sequence": filled(place, token),
            }
            for token, score in of_mask
        ]
        for place, of_mask in zip(places, best, strict=True)
    ]


def kind_of(bert: ModernBert) -> Kind:
    """What a model is served as.

    Raises:
        UserError: a classifier of tokens, answers or choices, which is not served.
    """
    pipeline = bert.pipeline
    if pipeline and pipeline.late:
        return "late-interaction"
    if pipeline and pipeline.splade:
        return "sparse"
    if bert.head in ("token_classification", "question_answering", "multiple_choice"):
        raise UserError(f"models with the head {bert.head!r} are not served; use predict")
    if bert.text_model.score_width:
        reranks = bert.text_model.score_width == 1
        return "reranker" if reranks else "classifier"
    return "embedding"


async def _in_thread(function: Callable[[], Result]) -> Result:
    return await asyncio.get_running_loop().run_in_executor(None, function)
