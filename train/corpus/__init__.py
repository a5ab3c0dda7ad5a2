"""From text files to packed rows on disk: the `prepare` and `data` commands."""
