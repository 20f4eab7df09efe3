"Labels: the formula and nothing else; text that says what the number says; pairs that differ in one number."
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib_nb.core import Judged
from calib_nb.labels import (
    LABELS,
    ORIGINAL_KNN,
    binary_labels,
    constant_labels,
    knn_labels,
    label_counts,
    label_figure,
    label_statistics,
    label_table,
    labelled_rows,
    preference_pairs,
    shuffled_labels,
    trl_preferences,
    with_references,
)
from calib_nb.prompts import parse_response

matplotlib.use("Agg")


def answers(outcomes):
    return [Judged(f"question {i}", f"answer {i}", bool(right)) for i, right in enumerate(outcomes)]


def on_a_circle(degrees):
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def cosine(a, b):
    return round(sum(float(x) * float(y) for x, y in zip(a, b)), 6)


def nearest_others(vectors, i):
    "All other places, the most similar first, ties by index."
    similarity = {j: cosine(vectors[i], vectors[j]) for j in range(len(vectors)) if j != i}
    return sorted(similarity, key=lambda j: (-similarity[j], j))


def plain_knn(outcomes, vectors, k, adjust=True):
    "The formula, one question at a time, in exact arithmetic: unrounded labels."
    labels = []
    for i, right in enumerate(outcomes):
        neighbours = nearest_others(vectors, i)[:k]
        accuracy = Fraction(sum(bool(outcomes[j]) for j in neighbours), k)
        label = Fraction(1, 10) + Fraction(8, 10) * accuracy
        if adjust and right:
            label = min(label + Fraction(1, 10), Fraction(95, 100))
        elif adjust:
            label = max(label - Fraction(15, 100), Fraction(5, 100))
        labels.append(label)
    return labels


mixed = st.lists(st.booleans(), min_size=3, max_size=40).filter(lambda o: 0 < sum(o) < len(o))


def hours(n):
    "Places on a clock's face; ties abound."
    return st.lists(st.integers(0, 11), min_size=n, max_size=n)


@given(mixed, st.data(), st.booleans())
@settings(max_examples=80, deadline=None)
def test_knn_labels_equal_the_formula(outcomes, data, adjust):
    k = data.draw(st.integers(1, len(outcomes) - 1))
    vectors = on_a_circle([30 * hour for hour in data.draw(hours(len(outcomes)))])
    labels = knn_labels(answers(outcomes), vectors, k=k, adjust=adjust)
    exact = plain_knn(outcomes, vectors, k, adjust)
    rounding = Fraction(5, 1000) + Fraction(1, 10**9)
    assert all(abs(label - e) <= rounding for label, e in zip(labels, exact))
    assert all(round(label, 2) == label for label in labels)


def test_knn_labels_made_by_hand():
    """Two neighbours each. Those of 0 degrees lie at 1 and 2, both wrong; those of 1 at 0 (right) and 2 (wrong);
    those of 50 at 52 (right) and 2 (wrong)."""
    vectors = on_a_circle([0, 1, 2, 50, 52])
    outcomes = [True, False, False, True, True]
    assert knn_labels(answers(outcomes), vectors, k=2, adjust=False) == [0.1, 0.5, 0.5, 0.5, 0.5]
    assert knn_labels(answers(outcomes), vectors, k=2) == [0.2, 0.35, 0.35, 0.6, 0.6]


def test_knn_labels_stop_at_floor_and_ceiling():
    vectors = on_a_circle([0, 1, 2, 90, 91, 92])
    judged = answers([True, True, True, False, False, False])
    assert knn_labels(judged, vectors, k=2) == [0.95] * 3 + [0.05] * 3
    others = dict(bonus=0.02, highest=0.91, penalty=0.05, lowest=0.07)
    assert knn_labels(judged, vectors, k=2, **others) == [0.91] * 3 + [0.07] * 3


def test_ties_go_to_the_smaller_index_and_a_repeated_question_is_a_neighbour():
    labels = knn_labels(answers([True, True, False, False]), on_a_circle([7, 7, 7, 7]), k=1, adjust=False)
    assert labels == [0.9, 0.9, 0.9, 0.9]


def test_a_label_never_contains_its_own_outcome_unless_adjusted():
    vectors = on_a_circle(np.arange(30) * 12)
    outcomes = [i % 3 == 0 for i in range(30)]
    before = knn_labels(answers(outcomes), vectors, k=5, adjust=False)
    outcomes[7] = not outcomes[7]
    after = knn_labels(answers(outcomes), vectors, k=5, adjust=False)
    assert before[7] == after[7]
    assert before != after


def test_at_20_neighbours_the_last_digit_tells_right_from_wrong():
    rng = np.random.default_rng(1)
    outcomes = rng.random(400) < 0.3
    labels = knn_labels(answers(outcomes), on_a_circle(rng.uniform(0, 360, 400)))
    below = [(label, right) for label, right in zip(labels, outcomes) if label != 0.95]
    assert all((round(100 * label) % 2 == 0) == right for label, right in below)


@pytest.mark.parametrize("outcomes, word", [([True] * 30, "30 are right"), ([False] * 30, "none are right")])
def test_labels_and_pairs_need_right_and_wrong_answers(outcomes, word):
    message = f"need right and wrong answers; of 30 training answers {word}"
    with pytest.raises(ValueError, match=message):
        knn_labels(answers(outcomes), np.eye(30))
    with pytest.raises(ValueError, match=message):
        preference_pairs(answers(outcomes))


def test_too_many_neighbours_are_refused_with_the_number_that_is_needed():
    with pytest.raises(ValueError, match="k = 20 neighbours need at least 21 training questions; there are 20"):
        knn_labels(answers([True, False] * 10), np.eye(20))
    assert len(knn_labels(answers([True, False] * 10 + [True]), np.eye(21))) == 21


def test_vectors_of_other_questions_are_refused():
    with pytest.raises(ValueError, match="3 vectors for 4 answers"):
        knn_labels(answers([True, False] * 2), np.eye(3), k=1)


def test_without_vectors_the_questions_are_embedded_into_the_given_folder(monkeypatch, tmp_path):
    seen = []

    def embed(texts, folder, model):
        seen.append((texts, folder, model))
        return np.eye(len(texts))

    monkeypatch.setattr("calib_nb.labels.embed", embed)
    knn_labels(answers([True, False, True]), folder=tmp_path, model="m", k=1)
    assert seen == [(["question 0", "question 1", "question 2"], tmp_path, "m")]


@given(mixed, st.sampled_from([(0.9, 0.1, 1), (0.85, 0.15, 2), (1.0, 0.0, 1)]))
@settings(max_examples=30, deadline=None)
def test_the_text_of_a_row_says_its_label(outcomes, values):
    right, wrong, decimals = values
    rows = labelled_rows(answers(outcomes), "binary", decimals, right=right, wrong=wrong)
    assert [r["label"] for r in rows] == binary_labels(answers(outcomes), right, wrong)
    for row, outcome in zip(rows, outcomes):
        said = parse_response(row["output"])
        assert (said.answer, said.confidence, said.provenance) == (row["answer"], row["label"], "parsed")
        assert row["is_correct"] == outcome
    assert sum(label_counts(rows).values()) == len(rows)


def test_a_label_that_the_digits_cannot_write_is_refused():
    judged = answers([True, False] * 15)
    vectors = on_a_circle(np.arange(30) * 5)
    with pytest.raises(ValueError, match="cannot be written with 1 decimals"):
        labelled_rows(judged, "knn", vectors=vectors)
    rows = labelled_rows(judged, "knn", decimals=2, vectors=vectors)
    assert [r["output"].rsplit(" ", 1)[1] for r in rows] == [f"{label:.2f}" for label in knn_labels(judged, vectors)]


def test_an_unknown_kind_of_label_is_named_beside_the_known_ones():
    with pytest.raises(ValueError, match="Did you mean 'knn'"):
        labelled_rows(answers([True, False]), "kkn")
    assert set(LABELS) == {"binary", "knn", "shuffled", "constant"}


@given(mixed)
@settings(max_examples=30, deadline=None)
def test_pairs_differ_in_the_confidence_only_and_prefer_the_honest_one(outcomes):
    for pair, right in zip(preference_pairs(answers(outcomes)), outcomes, strict=True):
        chosen, rejected = parse_response(pair["chosen"]), parse_response(pair["rejected"])
        assert chosen.answer == rejected.answer == pair["answer"]
        honest_first = (0.9, 0.1) if right else (0.1, 0.9)
        assert (chosen.confidence, rejected.confidence) == honest_first
        assert (pair["label"], pair["rejected_label"]) == honest_first
        assert pair["chosen"].rsplit(" ", 1)[0] == pair["rejected"].rsplit(" ", 1)[0]


@pytest.mark.parametrize("values", [dict(high=0.1, low=0.9), dict(high=0.55), dict(low=-0.1), dict(high=1.5)])
def test_pairs_that_cannot_be_written_or_prefer_nothing_are_refused(values):
    with pytest.raises(ValueError, match="low below high"):
        preference_pairs(answers([True, False]), **values)


def test_trls_format_has_its_three_columns_and_the_same_texts():
    pairs = preference_pairs(answers([True, False]))
    for plain, chat, pair in zip(trl_preferences(pairs), trl_preferences(pairs, chat=True), pairs, strict=True):
        assert plain == {"prompt": pair["input"] + "\n", "chosen": pair["chosen"], "rejected": pair["rejected"]}
        assert chat == {
            "prompt": [{"role": "user", "content": pair["input"]}],
            "chosen": [{"role": "assistant", "content": pair["chosen"]}],
            "rejected": [{"role": "assistant", "content": pair["rejected"]}],
        }


def test_trl_recognises_both_formats():
    data_utils = pytest.importorskip("trl.data_utils")
    pairs = preference_pairs(answers([True, False]))
    assert data_utils.is_conversational(trl_preferences(pairs, chat=True)[0])
    assert not data_utils.is_conversational(trl_preferences(pairs)[0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_statistics_are_numpys(labels):
    ours = label_statistics(labels)
    numpys = [np.mean(labels), np.std(labels), *np.percentile(labels, [0, 25, 50, 75, 100])]
    assert np.allclose([ours[name] for name in ORIGINAL_KNN], numpys, atol=6e-5)
    assert ours["n"] == len(labels)


def test_table_and_figure_show_the_original_beside_these_labels():
    labels, right = [0.05, 0.07, 0.11, 0.52], [False, False, False, True]
    table = label_table(labels)
    assert table.loc["max"].tolist() == [0.52, 0.52]
    assert table.loc["mean", "original"] == 0.153
    top, bottom = label_figure(labels, right).axes
    assert [t.get_text() for t in top.get_yticklabels()] == ["these labels", "original"]
    assert sum(bar.get_height() for bar in bottom.patches) == 4


def in_relations(outcomes, relations):
    return [replace(j, relation=relation) for j, relation in zip(answers(outcomes), relations)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), min_size=1, max_size=40), st.integers(0, 5))
def test_shuffled_labels_are_a_permutation_and_within_relation_each_relation_keeps_its_own(drawn, seed):
    judged = in_relations(*zip(*drawn))
    binary = binary_labels(judged)
    assert Counter(shuffled_labels(judged, seed)) == Counter(binary)
    within = shuffled_labels(judged, seed, within_relation=True)
    relations = [j.relation for j in judged]
    assert Counter(zip(relations, within)) == Counter(zip(relations, binary))
    assert within == shuffled_labels(judged, seed, within_relation=True), "the seed decides"


def test_shuffled_labels_of_ten_answers():
    judged = in_relations([1, 1, 1, 0, 0, 0, 0, 0, 1, 0], "aaaaabbbbb")
    golden = {
        (0, False): {0, 1, 4, 5},
        (1, False): {1, 5, 6, 7},
        (0, True): {0, 1, 2, 7},
    }
    for (seed, within), right in golden.items():
        labels = shuffled_labels(judged, seed, 0.8, 0.3, within)
        assert labels == [0.8 if i in right else 0.3 for i in range(10)]


def test_shuffled_labels_say_nothing_about_their_own_answer():
    judged = answers([i % 3 == 0 for i in range(300)])
    agree = [np.mean(np.equal(shuffled_labels(judged, seed), binary_labels(judged))) for seed in range(20)]
    assert np.mean(agree) == pytest.approx(1 / 9 + 4 / 9, abs=0.02)


SHARES = [(1, 3, 2, 0.33), (2, 3, 1, 0.7), (0, 5, 2, 0.0), (4, 4, 2, 1.0)]


@pytest.mark.parametrize("right, of, decimals, label", SHARES)
def test_constant_labels_are_the_share_of_right_answers_in_the_digits_written(right, of, decimals, label):
    judged = answers([i < right for i in range(of)])
    assert constant_labels(judged, decimals) == [label] * of
    rows = labelled_rows(judged, "constant", decimals)
    assert {row["label"] for row in rows} == {label}
    assert rows[0]["output"].endswith(f"Confidence: {label:.{decimals}f}")


def test_constant_labels_are_written_with_the_digits_that_rows_have_by_default():
    assert {row["label"] for row in labelled_rows(answers([1, 0, 0]), "constant")} == {0.3}


def test_reference_answers_take_the_place_of_wrong_ones_and_are_right():
    right, wrong = answers([True, False])
    wrong = replace(wrong, answers=["the first", "another"])
    kept, replaced = with_references([right, wrong])
    assert kept == right and wrong.model_answer == "answer 1"
    assert (replaced.model_answer, replaced.is_correct, replaced.verdict) == ("the first", True, "correct")
    with pytest.raises(ValueError, match="'question 1' was answered wrongly and has no accepted answer"):
        with_references(answers([True, False]))
