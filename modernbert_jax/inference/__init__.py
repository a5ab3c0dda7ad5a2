"""From documents of any number to results in order: packed rows, compiled programs."""
