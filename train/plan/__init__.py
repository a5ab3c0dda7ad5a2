"""Plans of a run on an absent machine, from compiling its real training step for it."""
