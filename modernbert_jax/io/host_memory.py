"""What the C library does with memory that has been freed."""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_MADV_HUGEPAGE = 14


def keep_freed() -> None:
    """Lets this process keep large buffers that it frees, in huge pages; glibc on Linux only.

    By default they go back to the kernel, which has to map and clear every page again, and pages
    are of 4 KiB. Threads that have allocated before, such as those of a backend of jax, go on as
    they were.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, -1)
    # Other arenas than the first one cannot hold buffers of more than 64 MiB.
    libc.mallopt(_M_ARENA_MAX, 1)
    if not _commits_strictly():
        _ask_for_huge_pages(libc)


def _ask_for_huge_pages(libc: ctypes.CDLL) -> None:
    """Extends the heap by addresses for most of the machine's memory, and marks them.

    Nothing is touched, so nothing is used; what is freed here stays part of the heap. With all of
    the memory the kernel could refuse to fork.
    """
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    page = os.sysconf("SC_PAGE_SIZE")
    size = page * (os.sysconf("SC_PHYS_PAGES") * 3 // 4)
    block = libc.malloc(size)
    if block:
        start = -(-block // page) * page
        libc.madvise(start, size - page, _MADV_HUGEPAGE)
        libc.free(block)


def _commits_strictly() -> bool:
    """Whether addresses count as memory though nothing lies there."""
    try:
        return Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2"
    except OSError:
        return False


def keep_freed_on_cpu() -> None:
    """`keep_freed` where jax has no accelerator; call it before jax has a backend.

    Every step on CPU needs the same buffers: mapping them anew takes a fifth of the time of a small
    model's step.
    """
    if has_only_cpu():
        keep_freed()


def has_only_cpu() -> bool:
    """Whether jax has no accelerator here; it gets no backend by being asked."""
    import jax

    if jax.config.jax_platforms:
        return jax.config.jax_platforms == "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not plugins and importlib.util.find_spec("libtpu") is None
