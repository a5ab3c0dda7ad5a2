"""Models as serialised programs that run with jax alone. docs/guides/export.md has the folder.

programs   what is exported of a model: a function of weights and packed rows
texts      how texts become token ids, as data for the manifest
folder     the folder: programs, weights, tokenizer, manifest
run        the example that runs a folder; it imports nothing of this package
"""
