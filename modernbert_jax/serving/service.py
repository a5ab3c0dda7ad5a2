"""`Service`: what a served model can do, over the batcher that all requests share."""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from modernbert_jax import ranges
from modernbert_jax.errors import UserError
from modernbert_jax.inference.runner import Document
from modernbert_jax.language_modelling import likeliest
from modernbert_jax.late_interaction import pool_tokens
from modernbert_jax.pipeline import Normalize
from modernbert_jax.pretrained import ModernBert
from modernbert_jax.scoring.similarity import unit
from modernbert_jax.splade import SparseVector, sparse

from . import labelling, masks
from .batcher import Batcher
from .faults import Fault, invalid, too_large, unsupported
from .labelling import Labelled
from .metrics import Metrics
from .programs import Programs, normalizes_last
from .reading import Documents, Reader, Reading, Sequences
from .settings import Settings

Kind = Literal[
    "embedding",
    "late-interaction",
    "sparse",
    "reranker",
    "classifier",
    "token-classifier",
    "question-answering",
]

if TYPE_CHECKING:
    from modernbert_jax.train.tasks import Example, Task

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
        labels = self.kind in ("token-classifier", "question-answering")
        self._task = labelling.task_of(bert, self.reader.longest) if labels else None
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
        count = self.programs.lanes["main"].width
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
        read, values = await self._read_and_run("main", inputs, reading)
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
        read, values = await self._read_and_run(lane, inputs, reading, _NUMBERS)
        pooling = self.bert.pipeline.token_pooling if self.bert.pipeline else None
        if lane == "main" and pooling is not None and not reading.is_query:
            values = await in_thread(lambda: [pool_tokens(x, pooling) for x in values])
        return values, read.tokens

    async def sparse_vectors(
        self, inputs: Sequences, reading: Reading
    ) -> tuple[list[SparseVector], int]:
        """Sparse vectors of texts, and the number of their tokens."""
        self._need("sparse")
        read, values = await self._read_and_run("main", inputs, reading)
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
        scores = await in_thread(lambda: self.bert.similarity(*both))
        return scores[0].tolist()

    async def scores(self, texts: Sequences, reading: Reading, raw: bool) -> tuple[np.ndarray, int]:
        """Scores of texts or pairs, float32 [n, labels], and the number of their tokens.

        Args:
            texts: of the classifier, or pairs of query and document of a reranker.
            reading: how they are read.
            raw: whether scores are those of the last layer, without the activation.
        """
        self._need("reranker", "classifier")
        read, values = await self._read_and_run("main", texts, reading)
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

    async def labelled(
        self, kind: Kind, texts: Sequence[Sequence[str]], changes: Mapping[str, Any]
    ) -> list[Labelled]:
        """Texts in windows as the model's task reads them, with the logits of their tokens.

        Args:
            kind: of the model that the caller needs.
            texts: those of each example; a question has two.
            changes: fields of the task that differ for this request.

        Raises:
            Fault: another model, too much text, or texts and fields that the task refuses.
        """
        from modernbert_jax import predictions  # which needs the training code

        self._need(kind)
        task = self._task
        assert task is not None  # models of these kinds have one
        self.reader.check_count(len(texts))
        self.metrics.texts.add(len(texts))

        def read() -> "tuple[Task, list[Example]]":
            try:
                self.reader.check_text(text for each in texts for text in each)
                own = labelling.changed(task, self.reader.longest, changes)
                records = [predictions.record_of(own, each) for each in texts]
                return own, predictions.examples_of(own, records, self.reader.tokenizer)
            except UserError as error:
                raise Fault(422, str(error), "Tokenizer") from None

        own, examples = await in_thread(read)
        documents = predictions.documents_of(examples)
        self.reader.check_tokens(sum(len(document.ids) for document in documents))
        outputs = predictions.outputs_of(examples, await self._run("main", documents))
        return [Labelled(own, *pair) for pair in zip(examples, outputs, strict=True)]

    async def masks(self, text: str, reading: Reading, top_k: int) -> list[list[dict[str, Any]]]:
        """For each mask of a text its candidates: score, token, token_str and the text with it."""
        if not self.fills_masks:
            raise unsupported(f"the model has no masked-LM head (its head is {self.bert.head!r})")
        read, values = await self._read_and_run("tokens", [text], reading)
        (document,), tokenizer = read.documents, self.reader.tokenizer
        places = masks.places(tokenizer, document)

        def filled() -> list[list[dict[str, Any]]]:
            best = likeliest(self.programs.mask_scores(values[0][places]), top_k)
            return masks.candidates(tokenizer, document, places, best)

        return await in_thread(filled)

    async def _read_and_run(
        self, lane: str, inputs: Sequences, reading: Reading, numbers: int = sys.maxsize
    ) -> tuple[Documents, list[np.ndarray]]:
        """The documents of a request, and their results of at most so many numbers per token."""
        self.metrics.texts.add(len(inputs))
        read = await in_thread(lambda: self.reader.documents(inputs, reading))
        if read.tokens * self.programs.lanes[lane].width > numbers:
            raise too_large(f"vectors of {read.tokens:,} tokens are too much; send fewer texts")
        skip = read.skip if self.programs.lanes[lane].skips else 0
        return read, await self._run(lane, read.documents, skip)

    async def _run(
        self, lane: str, documents: Sequence[Document], skip: int = 0
    ) -> list[np.ndarray]:
        """Finite results of documents."""
        values = await self.batcher.submit(lane, documents, skip)
        if not all(np.isfinite(value).all() for value in values):
            raise Fault(500, "the model's results are not finite; is it damaged?", "Backend")
        return values

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


def kind_of(bert: ModernBert) -> Kind:
    """What a model is served as.

    Raises:
        UserError: a model for multiple choice, for which clients have no request.
    """
    pipeline = bert.pipeline
    if pipeline and pipeline.late:
        return "late-interaction"
    if pipeline and pipeline.splade:
        return "sparse"
    if bert.head == "multiple_choice":
        raise UserError(f"models with the head {bert.head!r} are not served; use predict")
    if bert.head == "token_classification":
        return "token-classifier"
    if bert.head == "question_answering":
        return "question-answering"
    if bert.text_model.score_width:
        reranks = bert.text_model.score_width == 1
        return "reranker" if reranks else "classifier"
    return "embedding"


async def in_thread(function: Callable[[], Result]) -> Result:
    """The result of a function in another thread, so that the event loop goes on."""
    return await asyncio.get_running_loop().run_in_executor(None, function)
