"""Keep freed host memory in the process, so that large buffers are not mapped again."""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_MADV_HUGEPAGE = 14


def keep_freed() -> None:
    """Keep large buffers that this process frees, in huge pages; glibc on Linux only.

    By default they return to the kernel, which has to map and clear every page of 4 KiB again.
    Threads that have allocated before, such as those of a jax backend, are not affected.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, -1)
    # Only the first arena can hold buffers of more than 64 MiB.
    libc.mallopt(_M_ARENA_MAX, 1)
    if not commits_strictly():
        _ask_for_huge_pages(libc)


def _ask_for_huge_pages(libc: ctypes.CDLL) -> None:
    """Extend the heap by addresses for most of the machine's memory, marked for huge pages.

    The addresses are not touched and take no memory; freed here, they stay part of the heap. With
    addresses for all of the memory the kernel could refuse to fork.
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


def commits_strictly() -> bool:
    """True if the kernel counts untouched addresses as memory."""
    try:
        return Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2"
    except OSError:
        return False


def keep_freed_on_cpu() -> None:
    """Call `keep_freed` if jax has no accelerator; must run before jax has a backend.

    Every step on a CPU needs the same buffers; mapping them again takes a fifth of the time of a
    small model's step.
    """
    if _has_cpu_alone():
        keep_freed()


def _has_cpu_alone() -> bool:
    import jax

    config: Any = jax.config  # creates its attributes dynamically
    if config.jax_platforms:
        return config.jax_platforms == "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not plugins and importlib.util.find_spec("libtpu") is None
