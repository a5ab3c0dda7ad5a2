"""Presets: Python modules with `config()`, which returns a frozen dataclass."""
