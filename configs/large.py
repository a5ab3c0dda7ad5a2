"""ModernBERT large (Warner et al. 2024, section 2.2), started from base by tiling.

modernbert-jax pretrain large --data DATA

Starts from the end of base's first stage in `base/`, the output folder of that preset. Choose
another checkpoint with --init-from, or random weights with --init-from ''.

The first stage has two parts, as in the paper: the loss stopped falling after 900 billion tokens,
and training continued at a tenth of the learning rate. The data need rows of 1,024 and of 8,192
tokens.

Figures are those of the research code's configurations of large, named in `base`, which describe
the first part. Length, learning rate and weight decay of the second are from the paper's section
2.2 and the comments there. `eval_rows` and the checkpoints to keep are ours.
"""

from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.train.config import PretrainConfig, Stage

from . import base
from .base import BILLION


def config() -> PretrainConfig:
    """Pretraining in two parts, context extension, annealing."""
    return PretrainConfig(
        model=ModernBertConfig.preset("large"),
        output="large",
        init_from=f"base/checkpoints/{base.config().starts[1]}",
        init_model="tiled",
        init_tiling="middle",
        runtime=Runtime(dtype="bfloat16", remat="dots"),
        seed=314,
        stages=(
            Stage(
                name="pretrain",
                tokens=900 * BILLION,
                length=1024,
                rows=4928,
                microbatch_rows=448,
                batch_warmup_tokens=10 * BILLION,
                batch_warmup_rows=448,
                peak_learning_rate=5e-4,
                warmup_tokens=2 * BILLION,
                weight_decay=1e-5,
                global_rope_theta=10_000.0,
                local_rope_theta=10_000.0,
                shuffle_seed=9176,
            ),
            Stage(
                name="pretrain-slower",
                tokens=819 * BILLION,
                length=1024,
                rows=4928,
                microbatch_rows=448,
                peak_learning_rate=5e-5,
                weight_decay=1e-6,
                global_rope_theta=10_000.0,
                local_rope_theta=10_000.0,
            ),
            Stage(
                name="context-extension",
                tokens=250 * BILLION,
                length=8192,
                rows=616,
                microbatch_rows=56,
                peak_learning_rate=5e-5,
                weight_decay=1e-6,
                global_rope_theta=160_000.0,
                local_rope_theta=10_000.0,
                shuffle_seed=2998,
            ),
            Stage(
                name="anneal",
                tokens=50 * BILLION,
                length=8192,
                rows=624,
                microbatch_rows=48,
                peak_learning_rate=5e-5,
                decay_tokens=1.0,
                final_fraction=0.001,
                weight_decay=1e-6,
                global_rope_theta=160_000.0,
                local_rope_theta=10_000.0,
                shuffle_seed=2998,
                eval_every=1000,
                save_every=1000,
            ),
        ),
        eval_every=4000,
        eval_rows=8192,
        save_every=4000,
        keep=12,
        keep_every=40_000,
    )
