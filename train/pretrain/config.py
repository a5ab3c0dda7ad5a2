"""The configuration of a pretraining run."""

import dataclasses
import functools
from typing import ClassVar, Literal

import jax
import optax

from modernbert_jax import ranges
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.errors import UserError
from modernbert_jax.io.text import check_name
from modernbert_jax.ranges import (
    Count,
    Large,
    Length,
    Natural,
    NonNegative,
    Part,
    Positive,
    Rate,
    Seed,
    Share,
)

from .. import schedule
from ..engine.config import EngineConfig
from ..engine.lora import Lora
from .batch_size import BatchSizeSchedule

_AS_SHARES = "shares of the stage, such as 0.1, fit any number of tokens"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of training with one row length, one batch size and one schedule.

    Tokens count a row's whole capacity; packing leaves hardly any of it empty.
    """

    name: str
    tokens: Large
    """Length of the stage."""
    length: Length
    """Tokens in a row."""
    rows: Count
    """Rows in a batch, over all devices; with a batch-size warm-up, in those after it."""
    microbatch_rows: Natural = 0
    """Rows, over all devices, whose activations are in memory at once; 0 is the whole batch. The
    loss is that of the whole batch in any case."""
    batch_warmup_tokens: NonNegative = 0
    """Tokens over which batches grow from `batch_warmup_rows` to `rows`, each size for as many
    steps as any other. A number up to 1 is a share of the stage's tokens."""
    batch_warmup_rows: Natural = 0
    """Rows in the first batch; the others have multiples of it."""
    peak_learning_rate: Positive
    """Highest learning rate."""
    warmup_tokens: NonNegative = 0
    """Tokens over which the learning rate rises from 0. A number up to 1 is a share of the stage's
    tokens."""
    decay_tokens: NonNegative = 0
    """Tokens at the end of the stage over which the learning rate falls. A number up to 1 is a
    share of the stage's tokens; 0 holds the peak."""
    decay_shape: Literal["one_minus_sqrt", "linear", "cosine"] = "one_minus_sqrt"
    """Shape of the learning rate's decay."""
    final_fraction: Share = 0.0
    """Share of the peak that remains at the end of the decay."""
    weight_decay: NonNegative = 1e-5
    """Share of a weight that a step at the peak learning rate takes off it; for `--optimizer adamw`
    that share divided by the learning rate, as in PyTorch."""
    mask_rate: Part = 0.3
    """Share of the tokens to predict; evaluation has a rate of its own."""
    legacy_masking: bool = False
    """Mask as ModernBERT's research code: special tokens are masked and drawn too."""
    mixture: dict[str, NonNegative] = dataclasses.field(default_factory=dict)
    """Weights of the data's components in tokens; without any, the manifest's.

    Components that are not named, or have the weight 0, are left out.
    """
    epochs: dict[str, Positive] = dataclasses.field(default_factory=dict)
    """Times that components may be read in this stage, where it differs from the manifest."""
    global_rope_theta: Positive | None = None
    """Rotary theta of the global layers; None keeps the model's."""
    local_rope_theta: Positive | None = None
    """Rotary theta of the local layers; None keeps the model's."""
    shuffle_seed: Seed | None = None
    """Seed of the order of rows; None derives it from the run's seed and the stage's number."""
    eval_every: Natural = 0
    """Steps between evaluations in this stage; 0 takes the run's."""
    save_every: Natural = 0
    """Steps between checkpoints in this stage; 0 takes the run's."""

    def __post_init__(self):
        check_name(self.name, "stage")
        ranges.check(self)
        if self.mixture and not max(self.mixture.values()) > 0:
            raise UserError("mixture leaves out every component; give one a weight above 0")
        if self.rise_tokens + self.fall_tokens > self.tokens:
            raise UserError(
                f"warmup_tokens {self.warmup_tokens:,} and decay_tokens {self.decay_tokens:,} do"
                f" not fit into the stage's {self.tokens:,} tokens; {_AS_SHARES}"
            )
        self._check_batches()

    def _check_batches(self) -> None:
        unit, tokens = self.batch_warmup_rows, self.batch_warmup_tokens
        if (unit > 0) != (tokens > 0):
            raise UserError(
                f"batch_warmup_tokens is {tokens} and batch_warmup_rows {unit}; both must be more"
                " than 0, or both 0"
            )
        if unit and self.rows % unit:
            raise UserError(
                f"batch_warmup_rows is {unit}; it must divide the {self.rows} rows of a full batch"
            )
        if tokens > self.tokens:
            raise UserError(
                f"batch_warmup_tokens {tokens:,} do not fit into the stage's {self.tokens:,}"
                f" tokens; {_AS_SHARES}"
            )

    @property
    def rise_tokens(self) -> int:
        """Tokens over which the learning rate rises."""
        return self._tokens_of(self.warmup_tokens)

    @property
    def fall_tokens(self) -> int:
        """Tokens over which the learning rate falls."""
        return self._tokens_of(self.decay_tokens)

    @property
    def growth_tokens(self) -> int:
        """Tokens over which batches grow."""
        return self._tokens_of(self.batch_warmup_tokens)

    def _tokens_of(self, part: float) -> int:
        """Tokens of a part of the stage, which may be given as a share."""
        return round(part * self.tokens if part <= 1 else part)

    @property
    def in_tokens(self) -> "Stage":
        """The same stage without shares: each is replaced by its number of tokens."""
        return dataclasses.replace(
            self,
            warmup_tokens=self.rise_tokens,
            decay_tokens=self.fall_tokens,
            batch_warmup_tokens=self.growth_tokens,
        )

    @functools.cached_property
    def batches(self) -> BatchSizeSchedule:
        """The batch size of every step, and the stage's time in rows."""
        return BatchSizeSchedule(
            self.tokens, self.length, self.rows, self.batch_warmup_rows, self.growth_tokens
        )

    @property
    def steps(self) -> int:
        """Optimizer steps in the stage."""
        return self.batches.steps

    def learning_rate(self) -> optax.Schedule:
        """The schedule over the stage's own steps."""
        return lambda step: self.rate(self.peak_learning_rate, step)

    def rate(self, peak: float | jax.Array, step: jax.Array) -> jax.Array:
        """Learning rate at a step of the stage. It follows the tokens, for any batch sizes."""
        batches, decay = self.batches, self.fall_tokens / self.length
        schedule_ = schedule.warmup_stable_decay(
            peak,
            min(self.rise_tokens / self.length, batches.rows - min(decay, batches.rows)),
            batches.rows,
            min(decay, batches.rows),
            self.final_fraction,
            self.decay_shape,
        )
        return schedule_(batches.time(step))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainConfig(EngineConfig):
    """A pretraining run: model, data and stages, one after another in one folder."""

    FREE: ClassVar[tuple[str, ...]] = (*EngineConfig.FREE, "data_threads")

    model: ModernBertConfig
    stages: tuple[Stage, ...]
    data: str = "data"
    """Folder made by `modernbert-jax prepare`, with rows of every stage's length."""
    data_threads: Count = 2
    """Threads that read ahead. Batches do not depend on them; slow storage may need more."""
    init_from: str = ""
    """Checkpoint to start from, in any format, or the name of a model on the hub; empty starts from
    random weights."""
    init_model: Literal["given", "adopted", "tiled"] = "given"
    """Relation of `model` to that of `init_from`: `given`, the same; `adopted`, taken over from it
    (but for the vocabulary, which is the data's); `tiled`, larger and filled with tiles of it."""
    init_tiling: Literal["middle", "edge", "center"] = "middle"
    """Start of the tiles; see `modernbert_jax.train.tiling`."""
    init_vocabulary: Literal["same", "matched"] = "same"
    """`same`: the data's tokenizer is that of `init_from`. `matched`: it is another one, whose
    tokens start from the embeddings of the same tokens there."""
    attention_dropout: Rate = 0.1
    """Dropout rate in training, after each attention's output projection; not exported."""
    eval_every: Count = 1000
    """Steps between evaluations on the validation rows; also at both ends of every stage."""
    eval_rows: Count = 256
    """Validation rows to evaluate, at most."""
    eval_mask_rate: Part = 0.15
    """Share of the tokens that are masked in evaluation."""
    spike_deviations: NonNegative = 10.0
    lora: Lora = dataclasses.field(default_factory=lambda: Lora(whole=("head", "decoder")))

    def __post_init__(self):
        super().__post_init__()
        self._expand("data", "init_from")
        if not self.stages:
            raise UserError("stages is empty; a run needs one or more")
        most = self.model.max_position_embeddings
        for stage in self.stages:
            if stage.length > most:
                raise UserError(
                    f"stage {stage.name}: length is {stage.length:,}, and"
                    f" model.max_position_embeddings {most:,}; raise that or shorten the rows"
                )

    def stage_model(self, stage: Stage) -> ModernBertConfig:
        """The architecture with the rotary thetas of a stage."""
        thetas = {name: getattr(stage, name) for name in ("global_rope_theta", "local_rope_theta")}
        changes = {name: theta for name, theta in thetas.items() if theta is not None}
        return dataclasses.replace(self.model, **changes)

    @property
    def in_tokens(self) -> "PretrainConfig":
        """The same run with `Stage.in_tokens`, in which equal runs are equal."""
        return dataclasses.replace(self, stages=tuple(stage.in_tokens for stage in self.stages))

    @property
    def starts(self) -> tuple[int, ...]:
        """The step at which each stage starts; one more at the end, the run's last."""
        starts = [0]
        for stage in self.stages:
            starts.append(starts[-1] + stage.steps)
        return tuple(starts)
