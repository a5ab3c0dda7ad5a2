"""The programs that a served model needs, compiled ahead of time for a few shapes.

Requests call the compiled programs themselves, so a batch of any other shape would be an error and
not a compilation.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modernbert_jax.inference import in_flight
from modernbert_jax.inference.runner import Document
from modernbert_jax.inference.shapes import DOCUMENTS, Shape
from modernbert_jax.packing import Rows, rows_from
from modernbert_jax.pipeline import Normalize, reranker_activation
from modernbert_jax.pretrained import ModernBert
from modernbert_jax.sharding import row_pieces

from . import shapes
from .settings import BATCH_TOKENS, BATCH_TOKENS_ON_CPU

_SPARSE_DOCUMENTS = 16
"""Sparse vectors of a row at most: each has a number for every id of the vocabulary."""

MASKS = 16
"""Masks whose scores are computed together."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lane:
    """A program of the model with all that its batches have in common."""

    name: str
    """A key of `BatchRunner.programs`."""
    level: in_flight.Level
    width: int
    """Numbers of a result, for each document or token."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Static options of the program."""
    hides: bool = False
    """Whether some tokens may be hidden from the others, as in queries that are filled up."""
    skips: bool = False
    """Whether pooling leaves out the prompt."""
    documents: int = DOCUMENTS
    """Documents in a row at most."""


def lanes_of(bert: ModernBert) -> dict[str, Lane]:
    """The lanes of a model, by what they compute: "main", and "tokens" with hidden states."""
    programs, pipeline, texts = bert.runner.programs, bert.pipeline, bert.text_model

    def lane(name: str, **more: Any) -> Lane:
        return Lane(name=name, level=programs[name].level, width=programs[name].width, **more)

    if pipeline and pipeline.splade:
        count = pipeline.max_active_dims
        count = count if count and count < programs["sparse"].width else None
        return {"main": lane("sparse", options={"count": count}, documents=_SPARSE_DOCUMENTS)}
    if pipeline and pipeline.late:
        return {"main": lane("vectors", options={"normalize": True}, hides=True)}
    if bert.head in ("token_classification", "question_answering"):
        return {"main": lane("logits")}
    pooling = pipeline.pooling if pipeline else None
    skips = pooling is not None and not pooling.include_prompt
    if texts.score_width:
        if texts.score_program == "vectors":
            return {"main": lane("vectors", options={"normalize": True}, skips=skips)}
        return {"main": lane(texts.score_program)}
    tokens = lane("hidden")
    if pooling is None:
        return {"main": lane("pooled", options={"how": "mean"}), "tokens": tokens}
    own = not normalizes_last(bert)  # else the host divides, if the request wants it
    return {"main": lane("vectors", options={"normalize": own}, skips=skips), "tokens": tokens}


def normalizes_last(bert: ModernBert) -> bool:
    """Whether the last module of an embedding model divides vectors by their length."""
    steps = bert.pipeline.steps if bert.pipeline else ()
    return bool(steps) and isinstance(steps[-1], Normalize)


class Programs:
    """The compiled programs of a model.

    Attributes:
        lanes: the programs, by what they compute.
        shapes: of the batches of each lane.
        ahead: batches that the device may have at a time.
    """

    def __init__(self, bert: ModernBert, longest: int, batch_tokens: int = 0):
        """Prepare programs for documents of up to `longest` tokens; nothing is compiled yet.

        Args:
            bert: the model.
            longest: longest document in tokens.
            batch_tokens: tokens of a full batch on each device; 0 is a default for the device.
        """
        cpu = bert.runner.mesh.devices.flat[0].platform == "cpu"
        size = batch_tokens or (BATCH_TOKENS_ON_CPU if cpu else BATCH_TOKENS)
        pieces = row_pieces(bert.runner.mesh.shape)
        self.ahead = 1 if cpu else 2
        self.lanes = lanes_of(bert)
        self.shapes = {
            name: shapes.ladder(
                longest,
                min(size, bert.runner.programs[lane.name].most_tokens),
                pieces,
                lane.documents,
            )
            for name, lane in self.lanes.items()
        }
        self._bert = bert
        self._compiled: dict[tuple[str, Shape], Any] = {}
        self._masks: Any = None
        self._activation: Any = None

    def compile(self, report: Callable[[str, float], None] = lambda what, seconds: None) -> None:
        """Compile every program for every shape, and run it once.

        Args:
            report: called after each with its name and how many seconds it took.
        """
        for name, lane in self.lanes.items():
            for shape in self.shapes[name]:
                began = time.monotonic()
                arguments = self._arguments(lane, shape, [], [])
                with jax.set_mesh(self._bert.runner.mesh):
                    static = dict(lane.options)
                    if lane.name == "sparse":
                        static["segments"] = shape.documents
                    compute: Any = self._bert.runner.programs[lane.name].compute
                    rows, more = arguments
                    lowered = compute.lower(self._bert.params, rows, **more, **static)
                    self._compiled[name, shape] = lowered.compile()
                self.run(name, shape, [[Document([0])]], [[0]])
                report(f"{lane.name} {shape.rows} x {shape.length}", time.monotonic() - began)
        if self._bert.head == "masked_lm" and "tokens" in self.lanes:
            began = time.monotonic()
            states = np.zeros((MASKS, self._bert.config.hidden_size), np.float32)
            with jax.set_mesh(self._bert.runner.mesh):
                lowered = jax.jit(self._logits).lower(self._bert.params, states)
                self._masks = lowered.compile()
            report(f"masks {MASKS}", time.monotonic() - began)
        if width := self._bert.text_model.score_width:
            named = self._bert.pipeline.activation if self._bert.pipeline else None
            activation = jax.jit(reranker_activation(named, width))
            scores = np.zeros((DOCUMENTS, width), np.float32)
            self._activation = activation.lower(scores).compile()

    def run(
        self,
        name: str,
        shape: Shape,
        rows: Sequence[Sequence[Document]],
        skip: Sequence[Sequence[int]],
    ) -> list[list[np.ndarray]]:
        """Results of a batch: of each document of each row float32 [width] or [tokens, width].

        Args:
            name: a key of `lanes`.
            shape: one of the lane's shapes.
            rows: documents of each row, at most `shape.rows` of them.
            skip: tokens of the prompt of each document, where the lane leaves them out.
        """
        lane = self.lanes[name]
        placed, more = self._arguments(lane, shape, rows, skip)
        values = np.asarray(self._compiled[name, shape](self._bert.params, placed, **more))
        results: list[list[np.ndarray]] = [[] for _ in rows]
        keys = [[(b, s) for s in range(len(row))] for b, row in enumerate(rows)]

        def length(key: tuple[int, int]) -> int:
            return len(rows[key[0]][key[1]].ids)

        for (b, s), value in in_flight.unpacked(values, keys, length, lane.level):
            kept = rows[b][s].kept
            value = value if kept is None else value[kept]
            results[b].append(np.array(value, np.float32))  # not a view of the whole batch
        return results

    def mask_scores(self, states: np.ndarray) -> np.ndarray:
        """Scores of the vocabulary for the hidden states [masks, D] of masks: [masks, V]."""
        return _in_blocks(lambda block: self._masks(self._bert.params, block), MASKS, states)

    def activated(self, logits: np.ndarray) -> np.ndarray:
        """Scores [n, labels] with the activation of the model, or the default for its labels."""
        return _in_blocks(self._activation, DOCUMENTS, logits)

    def _logits(self, params: Any, states: jax.Array) -> Any:
        states = states.astype(jnp.dtype(self._bert.module.runtime.dtype))
        return self._bert.module.apply({"params": params}, states, method="logits")

    def _arguments(
        self,
        lane: Lane,
        shape: Shape,
        rows: Sequence[Sequence[Document]],
        skip: Sequence[Sequence[int]],
    ) -> tuple[Any, dict[str, Any]]:
        """The arrays of a batch on the devices."""
        flat = [document for row in rows for document in row]
        ends = np.cumsum([0, *(len(row) for row in rows)])
        places = [list(range(ends[b], ends[b + 1])) for b in range(len(rows))]
        places += [[] for _ in range(shape.rows - len(rows))]
        batch: Rows = rows_from([d.ids for d in flat], places, shape.length)
        more: dict[str, Any] = {}
        if lane.hides:
            sees = [np.arange(len(d.ids)) < (len(d.ids) if d.visible is None else d.visible)
                    for d in flat]  # fmt: skip
            more["visible"] = rows_from(sees, places, shape.length).token_ids.astype(bool)
        if lane.skips:
            more["skip"] = np.zeros((shape.rows, shape.documents), np.int32)
            for b, of_row in enumerate(skip):
                more["skip"][b, : len(of_row)] = of_row
        return self._bert.runner.placed((batch, more))


def _in_blocks(
    compute: Callable[[np.ndarray], jax.Array], size: int, rows: np.ndarray
) -> np.ndarray:
    """Results of a compiled function of [size, ...] for any number of rows [n, ...]."""
    results = []
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        block = np.zeros((size, *rows.shape[1:]), np.float32)
        block[: len(some)] = some
        results.append(np.asarray(compute(block))[: len(some)])
    return np.concatenate(results)
