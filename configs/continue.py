"""Going on from a released checkpoint on text of one's own domain, in a language that it knows.

modernbert-jax prepare --tokenizer CHECKPOINT --input 'text/*' --length 8192 --output data
modernbert-jax pretrain continue --init-from CHECKPOINT --data data --stages.0.tokens 2000000000

CHECKPOINT is a directory of any format, a run's checkpoint, or a name on the hub; the architecture
is its own. Rows are long, because short documents are packed into them all the same and a model
that sees only short rows unlearns long ones. The learning rate rises to a third of that of
ModernBERT's annealing, because the released weights have been annealed already, and is annealed
again over the last fifth.
"""

from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.train.pretrain.config import PretrainConfig, Stage

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
                warmup_tokens=BILLION // 50,
                decay_tokens=BILLION // 5,
                final_fraction=0.001,
            ),
        ),
        eval_every=200,
        save_every=200,
    )
