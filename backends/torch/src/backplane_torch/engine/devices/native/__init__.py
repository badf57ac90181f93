"""What is compiled: C that a processor computes with where torch's own operations take longer."""
