"""Backplane command line: finds the model, starts and supervises servers and workers."""
