from dataclasses import dataclass
from functools import partial

from trainables.trial.answer_cache import AnswerCache, Question


@dataclass(frozen=True)
class _Square(Question[int]):
    number: int


@dataclass(frozen=True)
class _Name(Question[str]):
    number: int


def test_a_question_is_answered_once() -> None:
    cache, asked = AnswerCache(), []

    def square(number: int) -> int:
        asked.append(number)
        return number**2

    found = [cache.answer(_Square(n), partial(square, n)) for n in (2, 3, 2)]
    assert found == [4, 9, 4] and asked == [2, 3]


def test_questions_of_two_kinds_are_two_questions() -> None:
    cache = AnswerCache()
    assert cache.answer(_Square(3), lambda: 9) == 9
    assert cache.answer(_Name(3), lambda: "three") == "three"
    assert cache.answer(_Square(3), lambda: 0) == 9
