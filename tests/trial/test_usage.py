from trainables.trial.usage import UsageLog


def test_the_last_artefact_of_a_role_counts() -> None:
    log = UsageLog()
    log.note("model", "a")
    log.note("member1", "b")
    log.note("model", "c")
    assert log.used == {"model": "c", "member1": "b"}
    assert not UsageLog().used, "no log shares its notes with another"


def test_a_model_is_noted_after_the_trainings_that_it_went_through() -> None:
    log = UsageLog()
    log.note_model("whole", {"epoch_seconds": [2.0, 3.0], "phases": {"first": [1.0]}})
    assert list(log.phases.items()) == [("first", (1.0,)), ("whole", (2.0, 3.0))]
    log.note_model("whole", {"epoch_seconds": [2.0, 3.0]})
    assert len(log.phases) == 2, "a training that is used twice was paid once"


def test_a_part_may_share_one_half_of_a_log() -> None:
    log = UsageLog()
    part = UsageLog(phases=log.phases)
    part.note("model", "a")
    part.note_training("a", [1.0])
    assert not log.used and log.phases == {"a": (1.0,)}
