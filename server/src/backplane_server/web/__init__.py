"""HTTP machinery that all dialects share: bodies, errors, streams, keys.

Of the dialects' JSON it knows the two shapes of an error alone.
"""
