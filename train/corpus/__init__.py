"""From text to packed rows on disk."""
