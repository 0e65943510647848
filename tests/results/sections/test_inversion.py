import base64
from pathlib import Path
from typing import Any

import numpy as np

from results.page.report import write_report
from results.records.run import load
from results.sections.inversion import attack_text, draw_reconstructions, reconstructions
from tests.results.run_folders import (
    METRICS,
    declared,
    demo_records,
    manifest,
    record,
    share,
    temperature,
    write_run,
)

Json = dict[str, Any]
INVERSION = {
    f"inversion_{name}": declared("Of reconstructions.", "minimize", 1.0)
    for name in ("accuracy", "accuracy_network", "accuracy_svm", "ssim", "ssim_baseline")
}


def _picture(value: int) -> str:
    return base64.b64encode(bytes([value] * 16)).decode()


def _notes(svm: tuple[int, int], brightness: int = 200) -> Json:
    """Return the notes of two classes; the network is always right."""
    classes = [
        {"label": label, "target": label, "network": label, "svm": svm[label],
         "reconstruction": _picture(brightness), "mean": _picture(10), "training": _picture(20)}
        for label in range(2)
    ]  # fmt: skip
    return {"inversion": {"pictures": {"shape": [4, 4, 1], "classes": classes}}}


def _inverted(trial: str, stack: list[Json], svm: float, network: float, **changes: Any) -> Json:
    metrics = {
        "clean_accuracy": 0.9,
        "inversion_accuracy": min(svm, network),
        "inversion_accuracy_network": network,
        "inversion_accuracy_svm": svm,
        "inversion_ssim": share(0.5),
        "inversion_ssim_baseline": share(0.75),
    }
    return record(trial, stack, metrics=metrics, **changes)


def _lam(value: float) -> Json:
    return {"name": "gradient_regularization", "lam": value}


def test_rows_are_the_references_and_then_every_setting_in_the_order_of_its_numbers(
    tmp_path: Path,
) -> None:
    rows = [
        _inverted("a", [_lam(10.0)], 0.2, 0.4, notes=_notes((0, 7), 30)),
        _inverted("b", [_lam(2.0)], 0.5, 0.3, notes=_notes((7, 7))),
        _inverted("c", [], 0.9, 1.0, notes=_notes((0, 1))),
        _inverted("d", [], 0.8, 1.0, notes=_notes((0, 1)), seed=1),
    ]
    info = reconstructions(load(write_run(tmp_path, manifest(metrics=METRICS | INVERSION), rows)))
    assert info is not None and info.shown == info.trials == 3
    titles = [title for title, _ in info.images.rows]
    assert titles[:2] == [
        "mean training image",
        "a training image; SSIM of unseen images to the mean 0.75",
    ]
    assert titles[2].startswith("undefended: inversion_accuracy 0.90 (svm), SSIM 0.50")
    assert "(lam=2): inversion_accuracy 0.30 (network)" in titles[3]
    assert "(lam=10): inversion_accuracy 0.20 (svm)" in titles[4]
    (_, mean), (_, training), _, (_, second), (_, third) = info.images.rows
    assert [int(row[0].pixels.max()) for row in (mean, training, third)] == [10, 20, 30]
    assert [image.answer for image in second] == [0, 1]
    assert [image.answer for image in third] == [0, 7]
    assert "lam=10" in info.alt() and "not shown" not in info.alt()
    drawn = draw_reconstructions(info)
    texts = [text.get_text() for axes in drawn.axes for text in axes.texts]
    assert texts == ["0", "1"] * 4 + ["0", "7 (is 1)"]


def test_of_many_the_undefended_and_the_whole_range_are_shown(tmp_path: Path) -> None:
    rows = [_inverted("none", [], 0.6, 1.0, notes=_notes((0, 1)))]
    rows += [
        _inverted(f"t{T}", [temperature(float(T))], T / 40, 1.0, notes=_notes((0, 1)))
        for T in range(1, 31)
    ]
    info = reconstructions(load(write_run(tmp_path, manifest(metrics=METRICS | INVERSION), rows)))
    assert info is not None and info.shown == 9 and info.trials == 31
    titles = [title for title, _ in info.images.rows]
    assert titles[2].startswith("undefended")
    assert "T=1)" in titles[3] and "T=30)" in titles[-1]
    assert "22 more are not shown" in info.alt()


def test_the_pixels_are_those_of_the_record(tmp_path: Path) -> None:
    rows = [_inverted("a", [], 0.9, 1.0, notes=_notes((0, 1)))]
    info = reconstructions(load(write_run(tmp_path, manifest(metrics=METRICS | INVERSION), rows)))
    assert info is not None
    assert np.array_equal(info.images.rows[2][1][0].pixels, np.full((4, 4, 1), 200))


def test_the_report_shows_them(tmp_path: Path) -> None:
    rows = [_inverted("a", [], 0.9, 1.0, notes=_notes((0, 7)))]
    page = write_report(write_run(tmp_path, manifest(metrics=METRICS | INVERSION), rows))
    assert (page.parent / "figures" / "reconstructions.png").is_file()
    text = page.read_text(encoding="utf-8")
    assert 'id="inversion"' in text and "undefended: inversion_accuracy 0.90 (svm)" in text


def test_records_without_reconstructions_give_no_figure(tmp_path: Path) -> None:
    assert reconstructions(load(write_run(tmp_path, manifest(), demo_records()))) is None


def test_the_report_says_what_the_attacker_had(tmp_path: Path) -> None:
    assert attack_text({}) == "white-box access, total variation prior"
    notes = _notes((0, 1))
    notes["inversion"] |= {
        "access": "black_box", "prior": "generative", "queries": {"of_a_start": 2000, "asked": 9}
    }  # fmt: skip
    had = "black-box access, generative prior, 2,000 queries a start"
    rows = [_inverted("a", [], 0.9, 1.0, notes=notes)]
    folder = write_run(tmp_path, manifest(metrics=METRICS | INVERSION), rows)
    info = reconstructions(load(folder))
    assert info is not None and info.attacks == (had,) and had in info.alt()
    assert f"The attack: {had}." in write_report(folder).read_text(encoding="utf-8")
