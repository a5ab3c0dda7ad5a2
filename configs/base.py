"""ModernBERT base (Warner et al. 2024, section 2.2): two trillion tokens in three stages.

modernbert-jax pretrain base --data DATA

The data need rows of 1,024 and of 8,192 tokens. Batches are those of eight GPUs with 96 rows each
(12 of the long ones) and six microbatches. They are the same on any number of devices.

All figures are those of the research code's configurations (`yamls/modernbert/` of
AnswerDotAI/ModernBERT), but for `eval_rows` and the checkpoints to keep, which are ours.
"""

from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.train.config import PretrainConfig, Stage

BILLION = 10**9


def config() -> PretrainConfig:
    """Pretraining, context extension, annealing."""
    return PretrainConfig(
        model=ModernBertConfig.preset("base"),
        output="base",
        runtime=Runtime(dtype="bfloat16", remat="dots"),
        seed=17,
        stages=(
            Stage(
                name="pretrain",
                tokens=1719 * BILLION,
                length=1024,
                rows=4608,
                microbatch_rows=768,
                batch_warmup_tokens=50 * BILLION,
                batch_warmup_rows=768,
                peak_learning_rate=8e-4,
                warmup_tokens=3 * BILLION,
                global_rope_theta=10_000.0,
                local_rope_theta=10_000.0,
                shuffle_seed=9176,
            ),
            Stage(
                name="context-extension",
                tokens=250 * BILLION,
                length=8192,
                rows=576,
                microbatch_rows=96,
                peak_learning_rate=3e-4,
                global_rope_theta=160_000.0,
                local_rope_theta=10_000.0,
                shuffle_seed=2998,
            ),
            Stage(
                name="anneal",
                tokens=50 * BILLION,
                length=8192,
                rows=576,
                microbatch_rows=96,
                peak_learning_rate=3e-4,
                decay_tokens=1.0,
                final_fraction=0.001,
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
        keep=12,  # all of the annealing, for `modernbert-jax average`
        keep_every=40_000,
    )
