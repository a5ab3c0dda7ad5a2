"""Files of `torch.save`, read and written without torch; nothing in them is executed."""
