"""What the C library does with memory that has been freed."""

import ctypes
import importlib.metadata
import importlib.util
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def keep_freed() -> None:
    """Lets this process keep large buffers that it frees, for the next ones; glibc only.

    By default they go back to the kernel, which has to map and clear every page again. Threads that
    have allocated before, such as those of a backend of jax, go on as they were.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, 2**31 - 1)
    libc.mallopt(_M_TRIM_THRESHOLD, -1)
    # Other arenas than the first one cannot hold buffers of more than 64 MiB.
    libc.mallopt(_M_ARENA_MAX, 1)


def keep_freed_on_cpu() -> None:
    """`keep_freed` where jax has no accelerator; call it before jax has a backend.

    Every step on CPU needs the same buffers: mapping them anew takes a fifth of the time of a small
    model's step.
    """
    if _has_cpu_alone():
        keep_freed()


def _has_cpu_alone() -> bool:
    import jax

    if jax.config.jax_platforms:
        return jax.config.jax_platforms == "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not plugins and importlib.util.find_spec("libtpu") is None
