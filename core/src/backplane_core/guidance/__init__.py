"""Grammars obeyed while a model generates: compiled by llguidance, followed token by token.

Only this package knows llguidance, and only `kinds`, `compiling` and `tokenizing` load it.
"""
