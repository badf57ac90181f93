"""Backplane backend: GGUF models through llama.cpp."""
