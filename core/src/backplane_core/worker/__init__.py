"""The worker process: one ModelRunner, an engine thread that drives it, an I/O thread around it."""
