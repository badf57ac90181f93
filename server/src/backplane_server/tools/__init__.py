"""Tool calls in the text of an answer: a parser per family of models, and their choice.

Text in, text and calls out: nothing here knows of tokens, HTTP or a dialect's JSON.
"""
