"""The comparison with sentence-transformers in training for retrieval, and its data sets."""
