"""Overlapping windows of long texts, cut between words, and the window that decides a word."""

import numpy as np

from modernbert_jax.alignment import Pieces


def cut(words: np.ndarray, room: int, stride: int) -> list[tuple[int, int]]:
    """Cut tokens into windows of at most `room`: pairs of first token and token after the last.

    Neighbours share about `stride` tokens. Words stay whole unless one is longer than `room`.

    Args:
        words: int32 [tokens], the word of each token.
        room: Tokens per window.
        stride: Tokens to share; below `room`.
    """
    length = len(words)
    # Tokens before which a window may begin or end.
    free = np.flatnonzero(np.r_[True, (words[1:] != words[:-1]) | (words[1:] < 0), True])
    windows, begin = [], 0
    while begin + room < length:
        inside = free[(free > begin) & (free <= begin + room)]
        end = int(inside[-1]) if inside.size else begin + room
        windows.append((begin, end))
        # Share as much as asked for, if the next word then still fits.
        follows = free[free > end][0]
        shared = free[(free >= max(end - stride, follows - room, begin + 1)) & (free <= end)]
        begin = int(shared[0]) if shared.size else end
    return [*windows, (begin, length)]


def deepest(pieces: Pieces, windows: list[tuple[int, int]], count: int) -> np.ndarray:
    """Where each of `count` words is predicted: its window and its first token, int32 [words, 2].

    This is the window with the most context on the shorter side; -1 for words without tokens.
    """
    places = np.full((count, 2), -1, np.int32)
    known = pieces.words >= 0
    word, at = np.unique(pieces.words[known], return_index=True)
    first = np.flatnonzero(known)[at]
    begin, end = np.array(windows, np.int64).T[:, :, None]
    length = len(pieces.words)
    left = np.where(begin > 0, first - begin, length)
    right = np.where(end < length, end - 1 - first, length)
    inside = (begin <= first) & (first < end)
    best = np.where(inside, np.minimum(left, right), -1).argmax(0) if len(first) else first
    places[word] = np.stack([best, first - begin[best, 0]], -1)
    return places
