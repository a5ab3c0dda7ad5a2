"""Texts of any number to vectors in shards: resumable, by any number of processes on any hosts."""
