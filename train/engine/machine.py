"""A machine for which a dry run estimates hours."""

from typing import NamedTuple

from modernbert_jax.errors import UserError, did_you_mean

from .hardware import PEAK_FLOPS


class Machine(NamedTuple):
    """Accelerators and how well they are used."""

    hardware: str
    """A key of `PEAK_FLOPS`."""
    devices: int
    mfu: float
    """Model FLOPs utilisation: the share of peak FLOP/s that the model's products reach."""

    @classmethod
    def named(cls, hardware: str, devices: int, mfu: float) -> "Machine":
        """A machine whose hardware has a key of `PEAK_FLOPS`, or its last word (h100, v5e).

        Raises:
            UserError: unknown hardware, or numbers out of range.
        """
        ends = {kind.split()[-1].lower(): kind for kind in PEAK_FLOPS}
        kinds = {kind.lower(): kind for kind in PEAK_FLOPS} | ends
        if hardware.lower() not in kinds:
            raise UserError(f"hardware is {hardware!r}; {did_you_mean(hardware, PEAK_FLOPS)}")
        if devices < 1 or not 0 < mfu <= 1:
            raise UserError(
                f"devices is {devices} and mfu {mfu}; they must be 1 or more, and above 0 and up"
                " to 1"
            )
        return cls(kinds[hardware.lower()], devices, mfu)

    def hours(self, flops: float) -> float:
        """Hours that a number of FLOPs takes."""
        return flops / (self.devices * PEAK_FLOPS[self.hardware] * self.mfu) / 3600

    def __str__(self) -> str:
        return f"{self.devices:,} x {self.hardware} at {self.mfu:.0%} MFU"


def duration(hours: float) -> str:
    """A number of hours, in the largest unit of which it is 1 or more."""
    units = {"hours": 1, "minutes": 60, "seconds": 3600}
    unit = next((unit for unit, count in units.items() if hours * count >= 1), "seconds")
    return f"{hours * units[unit]:,.1f} {unit}"


def short_tokens(tokens: float) -> str:
    """A number of tokens in millions or billions."""
    return f"{tokens / 1e9:,.2f} B" if tokens >= 1e9 else f"{tokens / 1e6:,.2f} M"
