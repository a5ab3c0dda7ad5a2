"""Pointers that Git LFS leaves in place of files that were not downloaded."""

BEGINNING = b"version https://git-lfs.github.com/spec/"
"""First bytes of every pointer."""

PROBLEM = (
    "a pointer of Git LFS, not the file itself; download it with `git lfs pull` in its repository"
)
"""What error messages say of a pointer."""


def is_pointer(content: bytes | bytearray) -> bool:
    """True if a file that begins with these bytes is a pointer."""
    return content.startswith(BEGINNING)
