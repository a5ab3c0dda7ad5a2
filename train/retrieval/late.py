"""Late-interaction models as what a run trains: their data, objective, evaluation and files."""

import dataclasses
import string
from collections.abc import Mapping, Sequence

from jax.sharding import Mesh

from modernbert_jax import convert
from modernbert_jax.errors import UserError
from modernbert_jax.inference.shapes import Shape
from modernbert_jax.pipeline import IDENTITY, Dense, LateInteraction, Normalize, Pipeline, Step

from . import initial_model, late_texts
from .batches import Batches
from .columns import DOCUMENT, QUERY
from .config import RetrievalConfig
from .data import ExampleSet
from .embedding import Embedding
from .late_encoding import TokenEncoder
from .late_objective import LateObjective
from .objective import RetrievalObjective
from .texts import TextSet
from .validation import RankingValidation, of_every_score

WIDTH = 128
"""Dimensions of a new model's vectors; ColBERT's."""

PREFIXES = {QUERY: "[Q] ", DOCUMENT: "[D] "}
"""Prefixes of a new model, which become tokens of its vocabulary; PyLate's."""

LENGTHS = {QUERY: 32, DOCUMENT: 180}
"""Longest texts of a new model in tokens, with the prefix; PyLate's."""

PUNCTUATION = "punctuation"
"""Name of the skiplist of all ASCII punctuation."""


@dataclasses.dataclass(frozen=True)
class LateInteractionModel(Embedding):
    """A model that gives a vector for each token (ColBERT; Khattab and Zaharia 2020)."""

    ENCODER = TokenEncoder
    FORMAT = "hf"  # PyLate's layout, or that of sentence-transformers 6 where it has more

    @classmethod
    def open(cls, config: RetrievalConfig) -> "LateInteractionModel":
        checkpoint = initial_model.load(config)
        pipeline = pipeline_of(config, checkpoint)
        late = _late(pipeline)
        used = late.query_prefix + late.document_prefix
        tokens = [token for token in PREFIXES.values() if token in used]
        checkpoint = convert.with_tokens(checkpoint, tokens)
        prompts = {QUERY: late.query_prefix, DOCUMENT: late.document_prefix, **config.prompts}
        limit = min(
            pipeline.max_length or checkpoint.config.max_position_embeddings,
            checkpoint.config.max_position_embeddings,
        )
        own = {QUERY: late.query_length, DOCUMENT: late.document_length}
        lengths = {role: length for role, length in own.items() if length} | config.lengths
        resolved = dataclasses.replace(
            config, prompts=prompts, lengths=lengths, max_length=config.max_length or limit
        )
        return cls(resolved, checkpoint, pipeline)

    def prompted(
        self, named: Mapping[str, str], train: Sequence[ExampleSet]
    ) -> "LateInteractionModel":
        return self  # prefixes are those of roles

    def tokenized(self, dataset: ExampleSet) -> TextSet:
        tokenizer, pipeline = self.checkpoint.need_tokenizer(self.config.model), self.pipeline
        return late_texts.tokenize(
            self.config, dataset, tokenizer, self.model, _late(pipeline), pipeline.lower_case
        )

    def objective(self, shape: Shape) -> RetrievalObjective:
        late = _late(self.pipeline)
        tokenizer = self.checkpoint.need_tokenizer(self.config.model)
        ids = (tokenizer.backend.token_to_id(word) for word in late.skiplist)
        # A key that is no role may be the column of queries.
        lengths = [
            length
            for key, length in self.config.lengths.items()
            if key.rpartition(".")[2] != DOCUMENT
        ]
        return LateObjective(
            config=self.config,
            model=self.model,
            loss_kind=self.loss,
            documents=shape.documents,
            steps_after=self.pipeline.steps,
            query_tokens=max(lengths, default=self.config.max_length),
            skipped_ids=tuple(i for i in ids if i is not None),
            scoring=self.config.scoring,
            xtr_top_k=self.config.xtr_top_k,
        )

    def validation(
        self, objective: RetrievalObjective, examples: Batches, mesh: Mesh
    ) -> RankingValidation:
        return RankingValidation(objective, examples, mesh, of_every_score)


def _late(pipeline: Pipeline) -> LateInteraction:
    assert pipeline.late is not None  # `pipeline_of` gives it
    return pipeline.late


def pipeline_of(config: RetrievalConfig, checkpoint: convert.Checkpoint) -> Pipeline:
    """The modules and settings of the trained model: the checkpoint's, with the run's changes.

    A checkpoint of another kind gets PyLate's: a projection to 128 dimensions, the prefixes `[Q] `
    and `[D] `, queries of 32 tokens that are filled up, documents of 180 without punctuation; or
    as many tokens as the model supports.

    Raises:
        UserError: modules that do not fit each other, or a length that expansion does not have.
    """
    width, limit = checkpoint.config.hidden_size, checkpoint.config.max_position_embeddings
    before = checkpoint.pipeline
    if before is None or before.late is None:
        before = Pipeline(
            kind="late-interaction",
            steps=projections(width, (config.projection_dims or WIDTH,)),
            similarity="MaxSim",
            max_length=before.max_length if before else None,
            lower_case=before.lower_case if before else False,
            late=LateInteraction(
                query_prefix=PREFIXES[QUERY],
                document_prefix=PREFIXES[DOCUMENT],
                query_length=min(LENGTHS[QUERY], limit),
                document_length=min(LENGTHS[DOCUMENT], limit),
                expansion="fixed",
                skiplist=tuple(string.punctuation),
            ),
        )
    if config.projection_dims:
        steps = projections(width, (*config.projection_hidden, config.projection_dims))
        before = dataclasses.replace(before, steps=steps)
    late = _late(before)
    if config.query_expansion != "checkpoint":
        late = dataclasses.replace(late, expansion=config.query_expansion)
    if config.query_expansion == "min":
        late = dataclasses.replace(late, expansion_length=config.expansion_length)
    if config.attend_to_expansion is not None:
        late = dataclasses.replace(late, attend=config.attend_to_expansion)
    if config.skiplist != "checkpoint":
        named = {PUNCTUATION: tuple(string.punctuation), "none": ()}
        late = dataclasses.replace(
            late, skiplist=named.get(config.skiplist, tuple(config.skiplist.split()))
        )
    late = dataclasses.replace(
        late,
        query_prefix=config.prompts.get(QUERY, late.query_prefix),
        document_prefix=config.prompts.get(DOCUMENT, late.document_prefix),
        query_length=config.lengths.get(QUERY, late.query_length),
        document_length=config.lengths.get(DOCUMENT, late.document_length),
    )
    if late.expansion == "fixed" and not late.query_length:
        raise UserError(
            'queries are filled up to a length that is not known; give it with --lengths "query 32"'
        )
    similarity = "MeanMaxSim" if config.scoring == "mean-maxsim" else "MaxSim"
    pipeline = dataclasses.replace(
        before, late=late, similarity=similarity, max_length=config.max_length or before.max_length
    )
    pipeline.check_widths(width)
    return pipeline


def projections(width: int, widths: tuple[int, ...]) -> tuple[Step, ...]:
    """Dense layers without bias or activation from the encoder's width, then normalisation."""
    layers: list[Step] = [
        Dense(
            name=f"dense_{number}",
            path=f"{number + 1}_Dense",
            in_features=before,
            out_features=after,
            bias=False,
            activation=IDENTITY,
        )
        for number, (before, after) in enumerate(zip((width, *widths), widths, strict=False))
    ]
    return (*layers, Normalize())
