"""Settings of every training run, for any objective."""

import dataclasses
import math
from pathlib import Path
from typing import ClassVar, Literal

from modernbert_jax.config import Runtime
from modernbert_jax.errors import UserError
from modernbert_jax.io import outputs
from modernbert_jax.io.paths import expanded
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
    seed: int = 17
    """Seed of the order of data, masks, dropout and random initial weights."""

    optimizer: Literal["stable_adamw", "adamw"] = "stable_adamw"
    """`stable_adamw` clips the step of each tensor by its RMS; `adamw` is PyTorch's."""
    b1: float = 0.9
    """Decay of the gradient's running mean."""
    b2: float = 0.98
    """Decay of the squared gradient's running mean."""
    eps: float = 1e-6
    """Added to the root of the squared gradient's mean."""
    clip_norm: float = 0.0
    """Global gradient norm at which gradients are clipped; 0 disables clipping."""
    layer_decay: float = 1.0
    """Factor of the learning rate for every layer further from the head; 1 trains all alike."""
    freeze: tuple[str, ...] = ()
    """Regular expressions; tensors whose name (`model.layers.3.attn.Wqkv.weight`) contains a match
    are not trained."""
    freeze_layers: int = 0
    """Number of first layers that are frozen, with the embeddings; 0 trains all."""
    lora: Lora = dataclasses.field(default_factory=Lora)
    """Adapters that are trained in place of the encoder, and merged for the export."""

    patience: int = 0
    """Evaluations without a better score after which training ends; 0 never ends it early."""
    min_delta: float = 0.0
    """Improvement of the score that resets `patience`."""
    keep_best: bool = False
    """Whether the model of the best evaluation is kept and exported, not the last one."""

    log_every: int = 10
    """Steps between rows of metrics."""
    save_every: int = 1000
    """Steps between checkpoints; one is also saved on a stop."""
    keep: int = 3
    """Number of recent checkpoints to keep."""
    keep_every: int = 0
    """Checkpoints at multiples of this many steps are kept as well; 0 keeps none of them."""
    spike_deviations: float = 0.0
    """Standard deviations above the running mean of the loss at which a step is skipped; 0 accepts
    any finite loss."""
    skip_limit: int = 20
    """Consecutive skipped steps after which the run stops."""
    wandb_project: str = ""
    """Project of Weights & Biases that receives the metrics; needs the extra `wandb`."""

    def __post_init__(self):
        for name in ("log_every", "save_every", "keep", "skip_limit"):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        for name in ("keep_every", "spike_deviations", "clip_norm", "patience", "min_delta"):
            self._require(name, 0 <= getattr(self, name) < math.inf, "0 or more")
        for name in ("b1", "b2"):
            self._require(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self._require("layer_decay", 0 < self.layer_decay <= 1, "more than 0 and at most 1")
        self._expand("output")
        self._require("seed", 0 <= self.seed < 2**32, "0 or more, and below 2^32")

    def check_output(self) -> None:
        """Raise `UserError` unless the run's folder can be written, or holds a finished run."""
        if not (Path(self.output) / "export").exists():
            outputs.check_folder(self.output)

    def _expand(self, *names: str) -> None:
        """Replace `~` in fields that are paths by the home folder."""
        for name in names:
            object.__setattr__(self, name, expanded(getattr(self, name)))

    def _require(self, name: str, ok: bool, what: str) -> None:
        """Raise `UserError` unless a field is what it must be."""
        if not ok:
            raise UserError(f"{name} is {getattr(self, name)}; it must be {what}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(EngineConfig):
    """Settings of a run with one objective and one rise and fall of the learning rate."""

    learning_rate: float = 5e-5
    """Peak learning rate."""
    warmup: float = 0.1
    """Share of the steps over which the learning rate rises."""
    schedule: Shape = "linear"
    """Shape of the learning rate's decay to zero after the warm-up."""
    weight_decay: float = 1e-5
    """stable_adamw: share of a weight that a step at the peak learning rate takes off it.
    adamw: that share divided by the learning rate, as in PyTorch. AdamW's 0.01 at a learning rate
    of 5e-5 is 5e-7 for stable_adamw."""

    def __post_init__(self):
        super().__post_init__()
        self._require("learning_rate", 0 < self.learning_rate < math.inf, "more than 0")
        self._require("warmup", 0 <= self.warmup <= 1, "between 0 and 1")
        self._require("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more")
