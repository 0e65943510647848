"""What was computed of a deployed model before in the trial, and is not computed again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Question(Generic[T]):
    """All that an answer of type T depends on: a base for frozen dataclasses, one a kind."""


class AnswerCache:
    """The answers by their questions; a vote has many passes, and an attack has more."""

    def __init__(self) -> None:
        self._answers: dict[Question[Any], Any] = {}

    def answer(self, question: Question[T], compute: Callable[[], T]) -> T:
        """Return the answer to a question, computed where nobody has asked it before."""
        if question not in self._answers:
            self._answers[question] = compute()
        found: T = self._answers[question]
        return found
