"""Backplane HTTP server: TGI and OpenAI APIs over any backend."""
