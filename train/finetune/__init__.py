"""Fine-tuning: labelled examples in packed rows, for every task of `modernbert_jax.train.tasks`."""
