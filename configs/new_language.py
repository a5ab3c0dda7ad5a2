"""A released model for another language: new tokenizer, embeddings matched to the old ones.

modernbert-jax tokenizer train --input 'text/*' --vocab-size 50368 --output tokenizer
modernbert-jax prepare --tokenizer tokenizer --input 'text/*' --length 1024 8192 --output data
modernbert-jax pretrain new-language --init-from CHECKPOINT --data data

The layers are those of CHECKPOINT. Tokens of both vocabularies keep their embedding; others start
from the mean of the old tokenizer's pieces. Most tokens are trained in short rows, with the rotary
thetas of long ones; long rows follow while the learning rate decays.
"""

from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.train.config import PretrainConfig, Stage

from .base import BILLION


def config() -> PretrainConfig:
    """Twenty billion tokens in rows of 1,024, then five in rows of 8,192."""
    return PretrainConfig(
        model=ModernBertConfig.preset("base"),
        init_from="answerdotai/ModernBERT-base",
        init_model="adopted",
        init_vocabulary="matched",
        output="new-language",
        runtime=Runtime(dtype="bfloat16", remat="dots"),
        stages=(
            Stage(
                name="adapt",
                tokens=20 * BILLION,
                length=1024,
                rows=1152,
                microbatch_rows=64,
                peak_learning_rate=3e-4,
                warmup_tokens=0.025,
            ),
            Stage(
                name="anneal",
                tokens=5 * BILLION,
                length=8192,
                rows=144,
                microbatch_rows=8,
                peak_learning_rate=3e-4,
                decay_tokens=1.0,
                final_fraction=0.001,
            ),
        ),
    )
