"""Continued pretraining of a released model on your domain, with the model's own tokenizer.

modernbert-jax prepare --tokenizer CHECKPOINT --input 'text/*' --length 8192 --output data
modernbert-jax pretrain continue --init-from CHECKPOINT --data data --stages.0.tokens 2000000000

CHECKPOINT is a directory of any format, a run, one of its checkpoints, or a name on the hub. The
architecture is the checkpoint's. Rows are long: short documents are packed into them as well, and a
model that sees only short rows unlearns long ones. The released weights are annealed already, so
the learning rate peaks at a third of ModernBERT's in annealing; it decays over the last fifth.
"""

from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.train.config import PretrainConfig, Stage

from .base import BILLION


def config() -> PretrainConfig:
    """One stage of a billion tokens."""
    return PretrainConfig(
        model=ModernBertConfig.preset("base"),
        init_from="answerdotai/ModernBERT-base",
        init_model="adopted",
        output="continued",
        runtime=Runtime(dtype="bfloat16", remat="dots"),
        stages=(
            Stage(
                name="domain",
                tokens=BILLION,
                length=8192,
                rows=72,
                microbatch_rows=8,
                peak_learning_rate=1e-4,
                warmup_tokens=0.02,
                decay_tokens=0.2,
                final_fraction=0.001,
            ),
        ),
        eval_every=200,
        save_every=200,
    )
