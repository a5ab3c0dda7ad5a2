"""From packed rows on disk to batches on devices."""
