"""Limits of the server, and how its batches are made."""

import dataclasses

from modernbert_jax.ranges import Count, Natural, NonNegative, Positive

BATCH_TOKENS_ON_CPU = 2048
"""Tokens of a full batch on a CPU, where larger ones cost latency and gain nothing."""

BATCH_TOKENS = 16384
"""Tokens of a full batch on each accelerator."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits of requests and of the queue, and how long a batch waits."""

    max_texts: Count = 512
    """Texts of a request at most."""
    max_tokens: Count = 131072
    """Tokens of a request at most, over all its texts."""
    max_bytes: Count = 4 * 2**20
    """Bytes of a request's body at most."""
    max_length: Natural = 0
    """Longest text in tokens; 0 is the model's longest input."""
    timeout: Positive = 60.0
    """Seconds within which a request must be read and answered."""
    queue_requests: Count = 2048
    """Requests at the same time at most; others get status 429."""
    queue_tokens: Count = 2**20
    """Tokens waiting for the device at most; requests beyond get status 429."""
    queue_bytes: Count = 256 * 2**20
    """Bytes of the bodies of all requests at the same time at most."""
    batch_tokens: Natural = 0
    """Tokens of a full batch on each device; 0 is 2,048 on a CPU and 16,384 elsewhere."""
    wait_ms: NonNegative = 3.0
    """Milliseconds that a batch waits for more texts while the device is idle."""
    auto_truncate: bool = False
    """Cut texts that are too long, where a request does not say; otherwise they are refused."""
