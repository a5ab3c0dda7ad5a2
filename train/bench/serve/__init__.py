"""Servers under load, one after another on this machine: ours, and peers that do the same work.

servers        how each side is started, asked and stopped
peer           sentence-transformers behind an application of the same kind
load           a bounded number of requests over connections that are always busy
comparison     the texts, the sides, the check of the vectors, and the table
"""
