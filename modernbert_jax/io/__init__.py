"""Reading and writing: whole files, checksums, the hub, remote storage, progress, host memory."""
