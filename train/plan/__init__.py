"""What a run needs on a machine that is not there, from compiling its real step for it."""
