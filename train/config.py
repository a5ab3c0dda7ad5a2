"""What a configuration file of pretraining imports: `PretrainConfig` and its `Stage`."""

from .pretrain.config import PretrainConfig, Stage

__all__ = ["PretrainConfig", "Stage"]
