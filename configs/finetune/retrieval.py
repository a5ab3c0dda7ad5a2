"""Embedding models and rerankers on your own data.

modernbert-jax finetune embedding --model DIR --train pairs.jsonl --output embedder
"""

import functools

from modernbert_jax.train.retrieval.config import RetrievalConfig
from modernbert_jax.train.retrieval.kinds import KINDS, Kind

from .. import Preset


def config(kind: Kind) -> RetrievalConfig:
    """The default configuration of a kind of run."""
    return RetrievalConfig(kind=kind)


PRESETS: dict[str, Preset] = {
    kind: Preset(summary, functools.partial(config, kind)) for kind, summary in KINDS.items()
}
