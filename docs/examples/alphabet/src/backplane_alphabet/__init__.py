"""A Backplane backend that recites the alphabet."""
