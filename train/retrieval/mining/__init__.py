"""Hard negatives: documents that resemble a query without answering it, as a data set.

    data and corpus -> texts on disk -> vectors or BM25 -> candidates -> rescored -> chosen -> file

`mine.mine(config.Mining(...))` does it all; the modules are the steps.
"""
