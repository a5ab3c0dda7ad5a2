"""`BatchRunner`: documents of any number in, results in order, over packed batches.

    runner = BatchRunner(config, runtime, head, labels, pipeline, mesh)
    vectors = runner.run("pooled", params, documents, how="mean")        # all at once
    for part in runner.windows("pooled", params, stream, tokens=10**5, how="mean"): ...

Every program is compiled once for each shape of `shapes.plan`.
"""

import collections
import copy
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.embedder import Embedder, embedder_params
from modernbert_jax.heads import HEADS, Classifier, document_pooling, encoder_of, pool
from modernbert_jax.inference import in_flight, shapes
from modernbert_jax.model import Encoder
from modernbert_jax.packing import Rows, power_of_two, rows_from
from modernbert_jax.pipeline import Pipeline
from modernbert_jax.sharding import global_array, row_pieces, rows_sharding
from modernbert_jax.splade import SparseEncoder, SparseVector, largest, sparse

BATCH_TOKENS = 8192
"""Tokens of a batch on each device, unless a single row has more."""

WINDOW_BATCHES = 16
"""Batches of a window, in which documents of a stream are packed together."""

_LOGITS_OF_BATCH = 2**27
"""Limit on the values of a batch with scores of the vocabulary: 0.5 GB of float32."""

Params = dict[str, Any]
Results = np.ndarray | list[np.ndarray] | list[SparseVector]


class Document(NamedTuple):
    """A document for the model."""

    ids: Sequence[int]
    visible: int | None = None
    """Number of the first tokens, to which others attend; None is all."""
    kept: np.ndarray | None = None
    """Boolean, one per token: whether its vector is part of the result; None is all."""


class Program(NamedTuple):
    """A computation over packed rows."""

    compute: Callable[..., jax.Array]
    """Function of parameters, rows and options; returns [B, DOCUMENTS, width] or [B, T, width]."""
    level: in_flight.Level
    width: int
    most_tokens: int = sys.maxsize
    """Limit on the tokens of a batch on each device, whatever the caller asks for."""
    ahead: int = in_flight.AHEAD
    sparse: bool = False
    """Whether results are `SparseVector`s."""


@dataclasses.dataclass
class Usage:
    """What was computed so far."""

    tokens: int = 0
    """Tokens of documents."""
    computed: int = 0
    """Tokens of batches, with padding."""


class BatchRunner:
    """Packs documents, runs programs on them and unpacks the results in order.

    Attributes:
        mesh: the devices.
        usage: what it has computed.
        module: the Flax module of the model.
        programs: the computations that the model supports, by name: "hidden" and "pooled" (option
            `how`); "vectors" of a pipeline (options `skip`, `normalize`); "logits" of tokens
            with a head, and "document_logits" with a classifier; "sparse" of a sparse model (option
            `count`, of the largest weights, or None for all).
    """

    def __init__(
        self,
        config: ModernBertConfig,
        runtime: Runtime,
        head: str,
        labels: int,
        pipeline: Pipeline | None,
        mesh: Mesh,
    ):
        """Prepare the programs of a model; nothing is compiled yet.

        Args:
            config: architecture.
            runtime: how it is computed.
            head: a key of `heads.HEADS`.
            labels: outputs of a classifier.
            pipeline: modules after the encoder, or None.
            mesh: devices, which divide rows, tokens and heads among them. If they belong to several
                processes, each process has to run the same documents, and gets all results.
        """
        self._config, self.mesh, self.usage = config, mesh, Usage()
        self._window_tokens = 0
        self._pieces = row_pieces(mesh.shape)
        self._encoder = Encoder(config, runtime)
        steps = pipeline.steps if pipeline else ()
        self._embedder = Embedder(config, runtime, steps)
        self.module = HEADS[head].build(config, runtime, labels)
        if head == "none" and pipeline and pipeline.layers:
            self.module = self._embedder
        # Results of other processes' devices are needed here, too.
        whole = NamedSharding(mesh, P()) if mesh.is_multi_process else None
        jitted = functools.partial(jax.jit, out_shardings=whole)
        self.programs = {
            "hidden": Program(jitted(self._hidden), "token", config.hidden_size),
            "pooled": Program(
                jitted(self._pooled, static_argnames="how"), "document", config.hidden_size
            ),
        }
        if pipeline and pipeline.splade:
            self._sparse_encoder = SparseEncoder(config, runtime, pipeline.splade)
            width = config.vocab_size
            rows = max(_LOGITS_OF_BATCH // (width * shapes.DOCUMENTS), 1)
            compute = jitted(self._sparse, static_argnames=("segments", "count"))
            self.programs["sparse"] = Program(
                compute, "document", width, rows * shapes.FULL_ROW, 1, sparse=True
            )
        elif pipeline:
            compute = jitted(self._vectors, static_argnames="normalize")
            level: in_flight.Level = "document" if pipeline.pooling else "token"
            self.programs["vectors"] = Program(compute, level, pipeline.width(config.hidden_size))
        if HEADS[head].output != "hidden":
            by_vocabulary = HEADS[head].output == "vocabulary"
            width = config.vocab_size if by_vocabulary else labels
            most = min(BATCH_TOKENS, _LOGITS_OF_BATCH // width)
            ahead = 1 if by_vocabulary else in_flight.AHEAD
            compute = jitted(self._logits)
            self.programs["logits"] = Program(compute, "token", width, most, ahead)
        if isinstance(self.module, Classifier):
            compute = jitted(self._document_logits)
            self.programs["document_logits"] = Program(compute, "document", labels)

    def with_windows(self, tokens: int) -> "BatchRunner":
        """A runner of the same programs with windows of so many tokens, and a usage of its own."""
        runner = copy.copy(self)
        runner._window_tokens, runner.usage = tokens, Usage()
        return runner

    def window_tokens(self, batch_tokens: int) -> int:
        """Tokens of a window of a stream, for batches of so many tokens on each device."""
        return self._window_tokens or WINDOW_BATCHES * self._pieces * batch_tokens

    def run(
        self,
        name: str,
        params: Params,
        documents: Iterable[Document],
        batch_tokens: int = BATCH_TOKENS,
        **options: Any,
    ) -> Results:
        """Results of all documents, packed together.

        Args:
            name: a key of `programs`.
            params: parameters of the model.
            documents: any number of them.
            batch_tokens: tokens of a batch on each device, but at least one row.
            options: of the program.

        Returns:
            float32 [documents, width]; or of each document [tokens, width], or a `SparseVector`.
        """
        (results,) = self.windows(name, params, documents, batch_tokens, tokens=None, **options)
        return results

    def windows(
        self,
        name: str,
        params: Params,
        documents: Iterable[Document],
        batch_tokens: int = BATCH_TOKENS,
        *,
        tokens: int | None,
        **options: Any,
    ) -> Iterator[Results]:
        """Results of a stream, window by window, in order and in bounded memory.

        A window is read when all batches of the one before it have been started, so that at most
        three windows are in memory. Arguments are those of `run`.

        Args:
            tokens: tokens of a window, in which documents are packed together; None is one window
                for all documents.
        """
        program = self.programs[name]
        batch_tokens = min(batch_tokens, program.most_tokens) if batch_tokens > 0 else batch_tokens
        opened: collections.deque[_Window] = collections.deque()

        def batches() -> Iterator[tuple[Any, tuple[_Window, list[list[int]]]]]:
            for group in _grouped(documents, tokens):
                window = _Window(group, program)
                opened.append(window)
                self.usage.tokens += sum(window.lengths)
                for shape, rows in shapes.plan(window.lengths, batch_tokens, self._pieces):
                    self.usage.computed += shape.tokens
                    yield window.laid_out(rows, shape), (window, rows)

        def compute(batch: tuple[Rows, np.ndarray | None]) -> jax.Array:
            with jax.set_mesh(self.mesh):
                rows, visible = self.placed(batch)
                more: dict[str, Any] = {} if visible is None else {"visible": visible}
                if program.sparse:  # rows of few documents have few vectors
                    more["segments"] = power_of_two(int(batch[0].segment_ids.max()))
                return program.compute(params, rows, **more, **options)

        for values, (window, rows) in in_flight.results(compute, batches(), program.ahead):
            window.put(np.asarray(values), rows)
            while opened and opened[0].complete:
                yield opened.popleft().results
        for window in opened:
            yield window.results

    def placed(self, batch: Any) -> Any:
        """A batch, a tree of arrays [B, ...], on the devices."""
        where = rows_sharding(self.mesh)
        if self.mesh.is_multi_process:
            return jax.tree.map(lambda x: global_array(x, where), batch)
        return jax.device_put(batch, where)

    def _hidden(self, params: Params, rows: Rows, visible: Any = None) -> Any:
        return self._encoder.apply({"params": encoder_of(params)}, *rows, visible=visible)

    def _logits(self, params: Params, rows: Rows) -> Any:
        return self.module.apply({"params": params}, *rows)

    def _sparse(self, params: Params, rows: Rows, segments: int, count: int | None) -> Any:
        vectors: Any = self._sparse_encoder.apply({"params": params}, *rows, segments=segments)
        return vectors if count is None else largest(vectors, count)

    def _document_logits(self, params: Params, rows: Rows) -> jax.Array:
        model = self.module.bind({"params": params})
        how = document_pooling(self._config)
        return model.logits(pool(model.hidden(*rows), rows.segment_ids, shapes.DOCUMENTS, how))

    def _pooled(self, params: Params, rows: Rows, how: str) -> jax.Array:
        return pool(self._hidden(params, rows), rows.segment_ids, shapes.DOCUMENTS, how)

    def _vectors(
        self,
        params: Params,
        rows: Rows,
        visible: Any = None,
        skip: int | jax.Array = 0,
        normalize: bool = True,
    ) -> Any:
        return self._embedder.apply(
            {"params": embedder_params(params)},
            *rows,
            segments=shapes.DOCUMENTS,
            visible=visible,
            skip=skip,
            normalize=normalize,
        )


class _Window:
    """Documents that are packed together, and their results."""

    def __init__(self, documents: Sequence[Document], program: Program):
        self._ids = [document.ids for document in documents]
        self._kept = [document.kept for document in documents]
        self._level, self._sparse = program.level, program.sparse
        self.lengths = [len(ids) for ids in self._ids]
        self._left = sum(length > 0 for length in self.lengths)
        visible = [
            n if d.visible is None else d.visible
            for d, n in zip(documents, self.lengths, strict=True)
        ]
        self._visible: list[np.ndarray] | None = None
        if visible != self.lengths:
            both = zip(visible, self.lengths, strict=True)
            self._visible = [np.arange(n) < first for first, n in both]
        self.results: Any
        if program.sparse:
            self.results = [sparse(np.zeros(0, np.float32)) for _ in documents]
        elif program.level == "token":
            self.results = [np.zeros((0, program.width), np.float32) for _ in documents]
        else:
            self.results = np.zeros((len(documents), program.width), np.float32)

    @property
    def complete(self) -> bool:
        """Whether all results are there."""
        return not self._left

    def laid_out(
        self, rows: list[list[int]], shape: shapes.Shape
    ) -> tuple[Rows, np.ndarray | None]:
        """A batch of documents, and its visible tokens [B, T] if any document hides some."""
        rows = [*rows, *([] for _ in range(shape.rows - len(rows)))]
        batch = rows_from(self._ids, rows, shape.length)
        if self._visible is None:
            return batch, None
        return batch, rows_from(self._visible, rows, shape.length).token_ids.astype(bool)

    def put(self, values: np.ndarray, rows: list[list[int]]) -> None:
        """Store the results of a batch."""
        for i, value in in_flight.unpacked(values, rows, self.lengths.__getitem__, self._level):
            kept = self._kept[i]
            if self._sparse:
                self.results[i] = sparse(value)
            else:
                self.results[i] = value.astype(np.float32) if kept is None else value[kept]
            self._left -= 1


def _grouped(documents: Iterable[Document], tokens: int | None) -> Iterator[list[Document]]:
    """Lists of documents with so many tokens; None is one list of all."""
    group: list[Document] = []
    size = 0
    for document in documents:
        group.append(document)
        size += len(document.ids) + 1
        if tokens is not None and size >= tokens:
            yield group
            group, size = [], 0
    if group or tokens is None:
        yield group
