"""Writers of the training text, one module per topic; pure Python, deterministic by seed."""
