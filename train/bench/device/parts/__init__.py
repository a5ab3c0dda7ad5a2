"""Parts of the command, one subject a module; every module here is found by itself."""
