"""Settings of every training run, for any objective."""

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

from modernbert_jax import ranges
from modernbert_jax.config import Runtime
from modernbert_jax.io import outputs
from modernbert_jax.io.paths import expanded
from modernbert_jax.io.text import check_text
from modernbert_jax.ranges import Count, Fraction, Natural, NonNegative, Positive, Rate, Seed, Share
from modernbert_jax.sharding import MeshShape

from ..schedule import Shape
from .lora import Lora


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Optimizer, trainable subset, guard, checkpoints and logging of a run."""

    FREE: ClassVar[tuple[str, ...]] = (
        "output",
        "mesh",
        "keep",
        "keep_every",
        "log_every",
        "save_every",
        "skip_limit",
        "wandb_project",
    )
    """Fields that may change when a run is resumed: they do not change its results."""
    START_OPTION: ClassVar[str] = "--init-from"
    """Option that names the checkpoint to start from, for messages."""

    output: str = "run"
    """Folder of the run. The same command in the same folder resumes."""
    runtime: Runtime = dataclasses.field(default_factory=Runtime)
    mesh: MeshShape = dataclasses.field(default_factory=MeshShape)
    """Devices along each axis that share the work. A run may be resumed on another mesh."""
    seed: Seed = 17
    """Seed of the order of data, masks, dropout and random initial weights."""

    optimizer: Literal["stable_adamw", "adamw"] = "stable_adamw"
    """`stable_adamw` clips the step of each tensor by its RMS; `adamw` is PyTorch's."""
    b1: Rate = 0.9
    """Decay of the gradient's running mean."""
    b2: Rate = 0.98
    """Decay of the squared gradient's running mean."""
    eps: Positive = 1e-6
    """Added to the root of the squared gradient's mean."""
    clip_norm: NonNegative = 0.0
    """Global gradient norm at which gradients are clipped; 0 disables clipping."""
    layer_decay: Fraction = 1.0
    """Factor of the learning rate for every layer further from the head; 1 trains all alike."""
    freeze: tuple[str, ...] = ()
    """Regular expressions; tensors whose name (`model.layers.3.attn.Wqkv.weight`) contains a match
    are not trained."""
    freeze_layers: Natural = 0
    """Number of first layers that are frozen, with the embeddings; 0 trains all."""
    lora: Lora = dataclasses.field(default_factory=Lora)
    """Adapters that are trained in place of the encoder, and merged for the export."""

    patience: Natural = 0
    """Evaluations without a better score after which training ends; 0 never ends it early."""
    min_delta: NonNegative = 0.0
    """Improvement of the score that resets `patience`."""
    keep_best: bool = False
    """Whether the model of the best evaluation is kept and exported, not the last one."""

    log_every: Count = 10
    """Steps between rows of metrics."""
    save_every: Count = 1000
    """Steps between checkpoints; one is also saved on a stop."""
    keep: Count = 3
    """Number of recent checkpoints to keep."""
    keep_every: Natural = 0
    """Checkpoints at multiples of this many steps are kept as well; 0 keeps none of them."""
    spike_deviations: NonNegative = 0.0
    """Standard deviations above the running mean of the loss at which a step is skipped; 0 accepts
    any finite loss."""
    skip_limit: Count = 20
    """Consecutive skipped steps after which the run stops."""
    wandb_project: str = ""
    """Project of Weights & Biases that receives the metrics; needs the extra `wandb`."""

    def __post_init__(self):
        ranges.check(self)
        self._expand("output")

    def check_output(self) -> None:
        """Raise `UserError` unless the run's folder can be written, or holds a finished run."""
        check_text(self.output, f"output {self.output}")
        if not (Path(self.output) / "export").exists():
            outputs.check_folder(self.output)

    def _expand(self, *names: str) -> None:
        """Replace `~` in fields that are paths by the home folder."""
        for name in names:
            object.__setattr__(self, name, expanded(getattr(self, name)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(EngineConfig):
    """Settings of a run with one objective and one rise and fall of the learning rate."""

    learning_rate: Positive = 5e-5
    """Peak learning rate."""
    warmup: Share = 0.1
    """Share of the steps over which the learning rate rises."""
    schedule: Shape = "linear"
    """Shape of the learning rate's decay to zero after the warm-up."""
    weight_decay: NonNegative = 1e-5
    """stable_adamw: share of a weight that a step at the peak learning rate takes off it.
    adamw: that share divided by the learning rate, as in PyTorch. AdamW's 0.01 at a learning rate
    of 5e-5 is 5e-7 for stable_adamw."""
