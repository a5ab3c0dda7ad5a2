"""Sizes of a run: real ones on an accelerator, tiny ones on a CPU."""

import dataclasses

from modernbert_jax.config import Dtype, ModernBertConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """What parts measure, and on which kind of device."""

    platform: str
    """"cpu", "gpu" or "tpu"."""
    device_kind: str
    memory: int = 0
    """Bytes of the device that a program may use; 0 if the device does not tell."""
    folder: str = ""
    """Folder for files that parts leave beside the results."""

    @property
    def tiny(self) -> bool:
        """Whether kernels are interpreted and times mean nothing."""
        return self.platform == "cpu"

    def model(self, preset: str) -> ModernBertConfig:
        """A preset's architecture; on a CPU two layers of the nano model, one of each kind."""
        if self.tiny:
            return ModernBertConfig.preset("nano", num_hidden_layers=2)
        return ModernBertConfig.preset(preset)

    @property
    def heads(self) -> int:
        """Heads of attention: those of ModernBERT base."""
        return 2 if self.tiny else 12

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return 64

    @property
    def check_lengths(self) -> tuple[int, ...]:
        """Tokens in a row that is compared with the oracle."""
        return (128,) if self.tiny else (8192, 1024)

    @property
    def time_lengths(self) -> tuple[int, ...]:
        """Tokens in a row that is timed."""
        return (128,) if self.tiny else (8192, 1024)

    @property
    def time_tokens(self) -> int:
        """Tokens of a timed call: enough that the launch of a kernel does not count."""
        return 256 if self.tiny else 65536 if self.memory >= 30e9 else 16384

    @property
    def dtypes(self) -> tuple[Dtype, ...]:
        """Types of attention's operands."""
        return ("float32",) if self.tiny else ("bfloat16", "float32")

    @property
    def timed_seconds(self) -> float:
        """Least duration of one timed repetition."""
        return 0.0 if self.tiny else 0.05

    @property
    def repeats(self) -> int:
        """Timed repetitions, of which the median counts."""
        return 1 if self.tiny else 5
