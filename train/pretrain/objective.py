"""The masked-LM objective of a pretraining stage."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.heads import MaskedLM
from modernbert_jax.io.typed_json import to_json
from modernbert_jax.masking import mask_tokens
from modernbert_jax.packing import Rows
from modernbert_jax.sharding import constrain, global_array, rows_sharding
from modernbert_jax.tokenizer import Tokenizer

from .. import engine, loss
from ..engine.hyperparameters import Hyperparameters
from . import initial_model
from .batch_size import microbatches
from .config import PretrainConfig, Stage

if TYPE_CHECKING:  # compiling a step needs no data path
    from ..rows.mixture import Order
    from ..rows.prepared import Prepared


@dataclasses.dataclass(frozen=True)
class MaskRule:
    """Rules of masking, except its rate and key."""

    mask_id: int
    vocab_size: int
    special_ids: tuple[int, ...]
    unused_ids: tuple[int, ...] = ()
    legacy: bool = False

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "MaskRule":
        """Build the rule for a tokenizer's ids."""
        return cls(
            tokenizer.mask_id, tokenizer.vocab_size, tokenizer.special_ids, tokenizer.unused_ids
        )

    def __call__(self, key: jax.Array, rows: Rows, rate: float) -> tuple[jax.Array, jax.Array]:
        """Return inputs and labels, int32 [B, T]."""
        return mask_tokens(
            key, rows.token_ids, rows.segment_ids, rate=rate, **dataclasses.asdict(self)
        )


class MaskedRows(NamedTuple):
    """Rows [B, T] whose tokens are masked, with what is to be predicted."""

    rows: Rows
    """`token_ids` are masked."""
    labels: jax.Array
    """int32 [B, T]; -100 where nothing is predicted."""
    key: jax.Array
    """For dropout."""


@dataclasses.dataclass(frozen=True, eq=False)
class MaskedLMObjective(engine.Objective):
    """Predict the masked tokens of packed rows: one stage of a pretraining run.

    The loss is the mean over all predicted tokens of a batch, however it is divided. Masks follow
    from seed and step alone, dropout from the microbatch as well.
    """

    config: PretrainConfig
    stage: Stage
    mask: MaskRule
    data: "Prepared | None" = None
    """Source of the rows; None only compiles."""
    exported: ModernBertConfig | None = None
    """The architecture as checkpoints of the stage note it."""

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def steps(self) -> int:
        return self.stage.steps

    @property
    def independent_rows(self) -> bool:
        """Without dropout, which is drawn for all rows of a microbatch together."""
        c = self._module.config
        return not any((c.embedding_dropout, c.attention_dropout, c.mlp_dropout))

    @functools.cached_property
    def _module(self) -> MaskedLM:
        """The model in training, with dropout."""
        dropout = self.config.attention_dropout
        model = dataclasses.replace(self._model, attention_dropout=dropout)
        return MaskedLM(model, self.config.runtime)

    @functools.cached_property
    def _model(self) -> ModernBertConfig:
        return self.config.stage_model(self.stage)

    def init(self, key: jax.Array) -> Any:
        module = MaskedLM(self.config.model, self.config.runtime)
        return engine.init_params(module, jax.random.fold_in(key, initial_model.INIT))

    def microbatches(self, batch: Rows, key: jax.Array) -> engine.Microbatches:
        """Mask a batch [B, T], and divide it into microbatches [A, B / A, T].

        A microbatch takes every A-th row, and so of every device the same number: none moves.
        """
        rule = dataclasses.replace(self.mask, legacy=self.stage.legacy_masking)
        mask_key, dropout_key = jax.random.split(key)
        inputs, labels = rule(mask_key, batch, self.stage.mask_rate)
        number = microbatches(len(labels), self.stage.microbatch_rows)

        def divided(x: jax.Array) -> jax.Array:
            x = constrain(x.reshape(-1, number, x.shape[-1]), "rows", None, "tokens")
            return constrain(x.swapaxes(0, 1), None, "rows", "tokens")

        rows = jax.tree.map(divided, batch._replace(token_ids=inputs))
        keys = jax.random.split(dropout_key, number)
        return engine.Microbatches(MaskedRows(rows, divided(labels), keys))

    def forward(self, params: Any, microbatch: MaskedRows) -> jax.Array:
        """Hidden states [B, T, D], with dropout."""
        return loss.hidden_states(self._module, params, *microbatch.rows, microbatch.key)

    def loss(self, params: Any, outputs: jax.Array, microbatch: MaskedRows) -> engine.Sums:
        return loss.hidden_sums(self._module, params, outputs, microbatch.labels)

    def batch(self, step: int) -> Rows:
        with contextlib.closing(self.stream(step)) as stream:
            return next(stream).arrays

    def stream(self, step: int) -> Generator[engine.Batch]:
        """Yield shuffled batches, read and moved to the devices ahead of time."""
        sizes = self.stage.batches
        while step < self.steps:
            size = sizes.at(step)
            reader = self._prepared.batches(
                self.stage.length,
                size.rows,
                self._shuffle_seed,
                sizes.rows_before(step),
                order=self.order,
                sharding=rows_sharding(jax.sharding.get_mesh()),
                threads=self.config.data_threads,
            )
            with contextlib.closing(reader):
                while step < sizes.end(size):
                    batch, step = next(reader), step + 1
                    components = np.bincount(batch.components, batch.tokens, len(self.order.names))
                    counts = {"capacity": batch.rows.token_ids.size, "components": components}
                    yield engine.Batch(batch.rows, counts)

    @functools.cached_property
    def order(self) -> "Order":
        """Which component of the data is read when."""
        return self._prepared.order(self.stage.length, self.stage.mixture, self.stage.epochs)

    @property
    def _prepared(self) -> "Prepared":
        if self.data is None:
            raise ValueError("this objective has no rows to train on")
        return self.data

    @property
    def _shuffle_seed(self) -> int:
        seed = self.stage.shuffle_seed
        return self.config.seed + self.config.stages.index(self.stage) if seed is None else seed

    def describe(self, batch: engine.Batch) -> str:
        rows, length = batch.arrays.token_ids.shape
        return f"{self.name}, batches of {rows:,} x {length:,} tokens"

    def row(self, step: int, counts: Mapping[str, Any]) -> dict[str, Any]:
        """The size of the batch; each component's share of the tokens and its epochs so far."""
        if not counts:
            return {}
        batches = self.stage.batches
        contents = self.order.contents(counts["components"], batches.rows_before(step))
        return {"batch_rows": batches.at(step - 1).rows} | contents

    def metadata(self, step: int) -> dict[str, Any]:
        return {
            "rows": self.stage.batches.rows_before(step),
            "config": to_json(self.config),
            "model": (self.exported or self._model).to_hf(),
        }

    def flops_per_token(self, length: float) -> float:
        return self._model.flops_per_token(length, self.stage.mask_rate)

    def evaluate(self, params: Any, step: int) -> engine.Evaluation | None:
        """Measure the loss on validation rows, of all components and of each."""
        if not self._validation:
            return None
        sums = {name: np.zeros(3) for name, _ in self._validation}
        for number, (name, rows) in enumerate(self._validation):
            sums[name] += [float(x) for x in self._eval_step(params, rows, number)]
        total, count, correct = sum(sums.values(), np.zeros(3))
        row = {"eval_loss": total / max(count, 1), "eval_masked_accuracy": correct / max(count, 1)}
        if len(sums) > 1:
            row |= {f"eval_loss/{name}": s[0] / max(s[1], 1) for name, s in sums.items()}
        text = f"validation loss {row['eval_loss']:.4f}"
        text += f"  masked accuracy {row['eval_masked_accuracy']:.4f}"
        return engine.Evaluation(row, -row["eval_loss"], text)

    @functools.cached_property
    def _validation(self) -> list[tuple[str, Rows]]:
        """The validation batches of each component, on the devices."""
        size = self.stage.rows // microbatches(self.stage.rows, self.stage.microbatch_rows)
        sharding = rows_sharding(jax.sharding.get_mesh())
        most, length = self.config.eval_rows, self.stage.length
        return [
            (name, jax.tree.map(lambda x: global_array(x, sharding), rows))
            for name in self.order.names
            for rows in self._prepared.validation(length, size, most, name)
        ]

    @functools.cached_property
    def _eval_step(self) -> Callable[[Any, Rows, int], tuple[jax.Array, ...]]:
        """The compiled evaluation of a batch: loss, predicted tokens and correct predictions.

        Masks depend on the seed and on the batch's number, the last argument.
        """
        module = MaskedLM(self._model, self.config.runtime)

        def step(params: Any, rows: Rows, number: int) -> tuple[jax.Array, ...]:
            key = jax.random.fold_in(jax.random.key(self.config.seed), number)
            inputs, labels = self.mask(key, rows, self.config.eval_mask_rate)
            sums = loss.masked_lm_sums(
                module, params, inputs, rows.segment_ids, rows.positions, labels
            )
            return sums.loss, sums.count, sums.metrics["masked_accuracy"]

        mesh = jax.sharding.get_mesh()
        return jax.jit(step, out_shardings=None if mesh.empty else NamedSharding(mesh, P()))


def learner(objective: MaskedLMObjective) -> engine.Learner:
    """Build what the steps of a stage are compiled from. Raises `UserError`."""
    config, stage = objective.config, objective.stage
    partition = engine.Partition()
    if config.freeze or config.freeze_layers or config.lora.rank or config.layer_decay != 1:
        partition = engine.Partition.of(
            config.model,
            "masked_lm",
            0,
            freeze=config.freeze,
            freeze_layers=config.freeze_layers,
            lora=config.lora,
        )
    return engine.Learner(
        objective, config, lambda hyper, step: stage.rate(hyper.learning_rate, step), partition
    )


def hyperparameters(config: PretrainConfig, stage: Stage) -> Hyperparameters:
    """The numbers of a stage that its compiled step takes as arguments."""
    start = config.starts[config.stages.index(stage)]
    decay = stage.weight_decay
    if config.optimizer == "stable_adamw":
        decay /= stage.peak_learning_rate
    return Hyperparameters.create(stage.peak_learning_rate, decay, start)


def abstract_step(
    config: PretrainConfig, stage: Stage, mask: MaskRule, mesh: Mesh
) -> tuple[jax.stages.Wrapped, tuple[Any, ...]]:
    """The jitted step of a stage's full batch, and the shapes of its arguments, for compiling.

    The arguments are state, fixed parameters, hyperparameters and rows.
    """
    trainer = learner(MaskedLMObjective(config, stage, mask))
    state, fixed = trainer.shapes(mesh)
    everywhere = NamedSharding(mesh, P())
    hyper = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((), x.dtype, sharding=everywhere),
        hyperparameters(config, stage),
    )
    row = jax.ShapeDtypeStruct((stage.rows, stage.length), jnp.int32, sharding=rows_sharding(mesh))
    rows = Rows(*(row for _ in Rows._fields))
    return trainer.train_step(state), (state, fixed, hyper, rows)


def phase(objective: MaskedLMObjective, mesh: Mesh) -> engine.Phase:
    """Build the part of a run that trains one stage."""
    config, stage = objective.config, objective.stage
    hyper = hyperparameters(config, stage)
    return engine.Phase(
        objective,
        engine.Program(learner(objective), mesh),
        hyper,
        int(hyper.start),
        int(hyper.start) + stage.steps,
        stage.eval_every or config.eval_every,
        stage.save_every or config.save_every,
        record_start=True,
    )
