"""The test kit: what a backend author and the project's own tests share.

`conformance` is the suite a backend subclasses, `echo` a deterministic backend without a model,
`sampling_vectors` the sampling semantics as data, `tool_parsers` the check of a plugin's parser.
"""
