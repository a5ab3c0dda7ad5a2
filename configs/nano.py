"""The model of the quickstart: ModernBERT's three stages in four minutes on two CPU cores.

modernbert-jax quickstart
"""

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.train.config import PretrainConfig, Stage


def config() -> PretrainConfig:
    """About 800 thousand tokens, on a schedule shaped like the released model's."""
    return PretrainConfig(
        model=ModernBertConfig.preset("nano"),
        attention_dropout=0.0,
        stages=(
            Stage(
                name="pretrain",
                tokens=600 * 1024,
                length=1024,
                rows=1,
                peak_learning_rate=2e-3,
                warmup_tokens=1 / 30,
                global_rope_theta=10_000.0,
            ),
            Stage(
                name="context-extension",
                tokens=12 * 4096,
                length=4096,
                rows=1,
                peak_learning_rate=2e-3,
            ),
            Stage(
                name="anneal",
                tokens=28 * 4096,
                length=4096,
                rows=1,
                peak_learning_rate=2e-3,
                decay_tokens=1.0,
                final_fraction=0.001,
            ),
        ),
        log_every=2,
        eval_every=200,
        eval_rows=16,
        save_every=100,
    )
