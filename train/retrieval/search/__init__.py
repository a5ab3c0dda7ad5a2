"""Search: the best documents of every query, by vectors or BM25, then perhaps by a reranker."""
