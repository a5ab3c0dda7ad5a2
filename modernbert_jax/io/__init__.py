"""Whole files, checksums, typed JSON, the hub, remote storage, progress, and host memory."""
