"""Facts of a call of attention, for what implementations refuse and which is chosen."""

from modernbert_jax.attention import Call


def call(**changes) -> Call:
    """A call on an H100, with some facts changed."""
    facts = {
        "platform": "gpu",
        "device_kind": "NVIDIA H100 80GB HBM3",
        "dtype": "bfloat16",
        "length": 512,
        "heads": 3,
        "head_dim": 64,
        "window": None,
        "symmetric": False,
    }
    return Call(**facts | changes)
