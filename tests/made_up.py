"""Small tables of readings for the tests of statistics."""
from calib_nb.core import Reading
from calib_nb.resampling import Sample, reading_arrays

COMMON = dict(answer="a", readout="verbalized", protocol="two_step", method="m", seed=0, split="test", relation="r")


def readings(confidence, correct, **fields):
    "One reading a row; None is a missing confidence."
    return [reading(i, p, y, fields) for i, (p, y) in enumerate(zip(confidence, correct))]


def reading(number, confidence, correct, fields):
    return Reading(
        id=f"q{number:04}",
        question=f"q{number}?",
        is_correct=bool(correct),
        confidence=confidence,
        provenance="missing" if confidence is None else "parsed",
        **(COMMON | fields),
    )


def sample_of(made):
    return Sample(reading_arrays(made))
