"""Chat templates, rendered by one sandbox in a process that can be killed.

Nothing else in the server renders a template, and no request can bring one.
"""
