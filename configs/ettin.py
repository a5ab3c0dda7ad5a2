"""The six Ettin encoders (Weller et al. 2025): what they share, and the numbers that differ.

modernbert-jax pretrain ettin-17m --data DATA

Three stages: 1.7 trillion tokens in rows of 1,024; 250 billion in rows of 7,999, in which the
learning rate falls to half; 50 billion in which it falls to a fiftieth, with fewer tokens masked.
The largest model has a third of the last two.

Figures are those of the authors' configurations (`pretraining/configs/standard/` of
JHU-CLSP/ettin-encoder-vs-decoder: `encoder_*.yaml` of each size, also in `de_decay/` and
`prolong_decay/`), but for `UNIT`, `eval_rows` and the checkpoints to keep.
"""

import functools
from typing import Any, NamedTuple

from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.train.config import PretrainConfig, Stage

from . import Preset
from .base import BILLION

SAVE_TOKENS = 8_500_000_000
"""Tokens between checkpoints (`save_interval`)."""

ROWS = 4608
"""Rows of a full batch."""

UNIT = 768
"""Rows of the first batch. The paper's configurations take it from the hardware."""

DEVICES = 4
"""GPUs of the original runs; the microbatches below are those of one."""


class Size(NamedTuple):
    """One column of the paper's table of hyperparameters."""

    learning_rate: float
    weight_decay: float
    warmup: int
    """Warm-up of the learning rate, in billion tokens."""
    batch_warmup: int
    """Warm-up of the batch size, in billion tokens."""
    microbatch: tuple[int, int, int]
    """Rows of one device in each stage."""
    later: tuple[float, float] = (250.0, 50.0)
    """Lengths of the second and the third stage, in billion tokens."""
    extension_local_theta: float = 160_000.0
    """Rotary theta of the sliding layers in the second stage."""


SIZES = {
    "17m": Size(3e-3, 3e-4, 4, 125, (144, 24, 12), extension_local_theta=10_000.0),
    "32m": Size(3e-3, 3e-4, 4, 100, (128, 24, 12)),
    "68m": Size(3e-3, 3e-4, 3, 75, (96, 18, 8)),
    "150m": Size(8e-4, 1e-5, 3, 50, (72, 16, 12)),
    "400m": Size(5e-4, 1e-5, 2, 10, (48, 6, 2)),
    "1b": Size(5e-4, 5e-5, 2, 3, (24, 2, 2), (83.333, 16.666_666_667)),
}


def config(name: str) -> PretrainConfig:
    """The three stages of a key of `SIZES`."""
    size = SIZES[name]
    extension, decay = (round(tokens * BILLION) for tokens in size.later)
    first, second, third = (rows * DEVICES for rows in size.microbatch)
    shared: dict[str, Any] = {"rows": ROWS, "weight_decay": size.weight_decay, "shuffle_seed": 21}
    return PretrainConfig(
        model=ModernBertConfig.preset(f"ettin-{name}"),
        output=f"ettin-{name}",
        runtime=Runtime(dtype="bfloat16", remat="dots"),
        seed=21,
        stages=(
            Stage(
                name="pretrain",
                tokens=1700 * BILLION,
                length=1024,
                microbatch_rows=first,
                batch_warmup_tokens=size.batch_warmup * BILLION,
                batch_warmup_rows=UNIT,
                peak_learning_rate=size.learning_rate,
                warmup_tokens=size.warmup * BILLION,
                global_rope_theta=10_000.0,
                local_rope_theta=10_000.0,
                save_every=SAVE_TOKENS // (ROWS * 1024),
                **shared,
            ),
            Stage(
                name="extension",
                tokens=extension,
                length=7999,
                microbatch_rows=second,
                peak_learning_rate=size.learning_rate,
                decay_tokens=1.0,
                final_fraction=0.5,
                global_rope_theta=160_000.0,
                local_rope_theta=size.extension_local_theta,
                save_every=SAVE_TOKENS // (ROWS * 7999),
                **shared,
            ),
            Stage(
                name="decay",
                tokens=decay,
                length=7999,
                microbatch_rows=third,
                peak_learning_rate=size.learning_rate / 2,
                decay_tokens=1.0,
                final_fraction=0.04,
                mask_rate=0.15,
                global_rope_theta=160_000.0,
                local_rope_theta=160_000.0,
                save_every=SAVE_TOKENS // (ROWS * 7999),
                **shared,
            ),
        ),
        eval_every=4000,
        eval_rows=8192,
        keep_every=20_000,
    )


PRESETS: dict[str, Preset] = {
    f"ettin-{name}": Preset(
        f"Ettin {name} (Weller et al. 2025), in three stages.",
        functools.partial(config, name),
    )
    for name in SIZES
}
