"""The contract between Backplane's server and its hardware backends."""
