"""Work that clients decide the cost of, in a process that can be killed: both ends of its pipes.

Knows neither templates nor grammars.
"""
