"""Retrieval models: embedding models and rerankers, trained on pairs, lists and scores."""
