"""SIG's sinusoid against what it is by hand."""

from __future__ import annotations

import math

import pytest
import torch

from tests.making import random_images
from trainables.errors import InputError
from trainables.threats.backdoor.backdoor import Backdoor
from trainables.threats.backdoor.sig import sinusoid, vanishes


def test_columns_count_from_one_and_a_wave_comes_back() -> None:
    # One wave over 4 columns, at j = 1 .. 4: sin of 90, 180, 270, 360 degrees.
    found = sinusoid(4, amplitude=0.1, frequency=1)
    torch.testing.assert_close(found, torch.tensor([0.1, 0.0, -0.1, 0.0]), atol=1e-7, rtol=0)
    six = sinusoid(32, amplitude=30 / 255, frequency=6)
    expected = [30 / 255 * math.sin(2 * math.pi * j * 6 / 32) for j in range(1, 33)]
    assert six.tolist() == pytest.approx(expected, abs=1e-7)


def test_a_sinusoid_is_added_to_every_row_and_cut_at_black_and_white() -> None:
    images = random_images(20)
    trigger = Backdoor(trigger="sig", amplitude=0.2, frequency=1).recipe().trigger
    found = trigger.stamp(images).double() / images.scale
    wave = sinusoid(8, amplitude=0.2, frequency=1).double()
    expected = (images.images().double() + wave).clamp(0, 1)
    assert float((found - expected).abs().max()) <= 0.5 / images.scale + 1e-6


def test_a_sinusoid_that_is_zero_on_every_column_is_refused() -> None:
    assert vanishes(12, 6) and not vanishes(8, 6) and not vanishes(12, 6, phase=0.5)
    with pytest.raises(InputError, match="6 waves is zero on every column of images of 12x12"):
        Backdoor(trigger="sig").recipe().trigger.check(12, 12)


def test_clean_label_rows_of_sig_are_stamped_alone() -> None:
    assert Backdoor(trigger="sig", labels="kept")._disguise(None, 0) is None  # type: ignore[arg-type]
