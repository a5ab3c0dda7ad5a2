"""Reports on training runs: curves as PNG and HTML."""
