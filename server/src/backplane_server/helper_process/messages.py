"""What goes over the pipes: questions and answers, numbered."""

import msgspec


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what is asked. `id` comes back with the answer."""

    id: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what is said to the question of this id."""

    id: int
