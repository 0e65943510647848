"""How families look and labels wrap."""

from results.page.figures import _families, _wrapped


def test_no_two_families_look_alike_and_stacks_have_their_own_colours() -> None:
    singles = [f"defense_{place}" for place in range(9)]
    stacks = [f"stack of {count}" for count in range(2, 7)]
    looks = _families(["none", *singles, *stacks])
    assert len(set(looks.values())) == len(looks) == 15
    assert len({colour for colour, _ in looks.values()}) == 15


def test_a_label_is_wrapped_in_full() -> None:
    label = "fgsm_adversarial_training(eps=0.03137, fraction=0.2756, random_start=True)"
    lines = _wrapped(label).split("\n")
    assert lines[0] == "fgsm_adversarial_training"
    assert lines[0] + " ".join(lines[1:]) == label
    assert max(map(len, lines)) <= 30
    assert _wrapped("plain") == "plain"
