"""Embeddings: one vector for each text, computed once.

Neighbours do not depend on the machine, and memory does not grow."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from calib_nb import embeddings
from calib_nb.embeddings import embed, locate_embedder, nearest_neighbours, similar_pairs


def unit(array):
    array = np.asarray(array, float)
    return (array / np.linalg.norm(array, axis=1, keepdims=True)).astype(np.float32)


def coarse_points(n):
    return st.lists(st.tuples(*[st.integers(1, 3)] * 3), min_size=n, max_size=n)


coarse = st.integers(2, 25).flatmap(coarse_points).map(unit)  # coarse vectors, so that ties are the rule


def plain_ranking(vectors, queries):
    "Sorted pairs, no arrays: what the module must agree with."

    def similarity(a, b):
        return round(sum(float(x) * float(y) for x, y in zip(a, b)), embeddings._DECIMALS)

    table = [[similarity(q, v) for v in vectors] for q in queries]
    return [sorted(range(len(row)), key=lambda j, row=row: (-row[j], j)) for row in table]


@given(coarse, st.data(), st.sampled_from([1, 7, 100, 2**22]))
@settings(max_examples=60, deadline=None)
def test_neighbours_equal_a_plain_sort_whatever_the_block(vectors, data, block):
    k = data.draw(st.integers(1, len(vectors) - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embeddings, "_BLOCK", block)
        patch.setattr(embeddings, "_FEW", 1)
        patch.setattr(embeddings, "_SIEVED", data.draw(st.sampled_from([0, 100])))
        indices, similarities = nearest_neighbours(vectors, k)
        others, _ = nearest_neighbours(vectors, k, vectors[:3])
    ranking = plain_ranking(vectors, vectors)
    without_itself = [[j for j in row if j != i] for i, row in enumerate(ranking)]
    assert indices.tolist() == [row[:k] for row in without_itself]
    assert others.tolist() == [row[:k] for row in ranking[:3]]  # queries may be among the vectors
    assert np.allclose(similarities, np.take_along_axis(vectors @ vectors.T, indices, 1), atol=1e-6)


def test_neighbours_equal_scikit_learn_where_nothing_is_tied():
    vectors = unit(np.random.default_rng(0).normal(size=(500, 16)))
    reference = NearestNeighbors(n_neighbors=10, metric="cosine", algorithm="brute").fit(vectors)
    distances, indices = reference.kneighbors()  # without itself
    ours, similarities = nearest_neighbours(vectors, 10)
    assert (ours == indices).all()
    assert np.allclose(similarities, 1 - distances, atol=2e-6)


def in_double_precision(vectors, k):
    "The whole matrix, in double precision, rounded and sorted."
    doubles = vectors.astype(float)
    similarity = np.round(doubles @ doubles.T, embeddings._DECIMALS)
    np.fill_diagonal(similarity, -2)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("spread", [0, 1e-5, 1e-3, 1])
def test_single_precision_loses_no_neighbour_however_close_they_lie(spread, monkeypatch):
    """Three heaps of texts that differ by less than single precision tells apart, by a little more, and by a lot; in
    the first two most rows are too crowded to be sieved."""
    monkeypatch.setattr(embeddings, "_SIEVED", 0)
    rng = np.random.default_rng(0)
    heaps = rng.normal(size=(3, 384))[rng.integers(3, size=600)]
    vectors = unit(heaps + spread * rng.normal(size=heaps.shape))
    assert (nearest_neighbours(vectors, 20)[0] == in_double_precision(vectors, 20)).all()


def test_the_sieve_is_wider_than_what_single_precision_errs():
    rng = np.random.default_rng(1)
    vectors = unit(rng.normal(size=(200, 384)))
    doubles = vectors.astype(float)
    error = np.abs(vectors @ vectors.T - doubles @ doubles.T).max()
    assert 2 * error + 10.0**-embeddings._DECIMALS < embeddings._sieve_width(384) < 1e-4


def test_a_long_search_goes_on_from_the_last_piece(tmp_path, monkeypatch):
    vectors = unit(np.random.default_rng(0).normal(size=(90, 8)))
    whole = nearest_neighbours(vectors, 3)
    monkeypatch.setattr(embeddings, "_PIECE", 90 * 30)
    searched, search = [], embeddings._Search.found

    def stop_at_the_third(self, rows, bar):
        if len(searched) == 2:
            raise KeyboardInterrupt
        searched.append(rows.start)
        return search(self, rows, bar)

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(embeddings._Search, "found", stop_at_the_third)
        nearest_neighbours(vectors, 3, folder=tmp_path)
    kept = sorted(tmp_path.rglob("[0-9]*.jsonl"))
    assert searched == [0, 30] and [file.name for file in kept] == ["0.jsonl", "30.jsonl"]
    kept[0].write_text(kept[0].read_text()[:-20])  # torn: made again
    searched.clear()
    monkeypatch.setattr(
        embeddings._Search, "found", lambda self, rows, bar: (searched.append(rows.start), search(self, rows, bar))[1]
    )
    again = nearest_neighbours(vectors, 3, folder=tmp_path)
    assert searched == [0, 60]
    assert all((a == b).all() for a, b in zip(again, whole))
    nearest_neighbours(vectors, 4, folder=tmp_path)  # another question
    assert searched == [0, 60, 0, 30, 60]


def test_a_repeated_text_is_a_neighbour_and_itself_is_not():
    vectors = unit([[1, 0], [1, 0], [1, 0], [0, 1]])
    assert nearest_neighbours(vectors, 2)[0].tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]


@pytest.mark.parametrize("k", [0, 3, -1])
def test_too_many_neighbours_are_refused_with_the_number_there_is(k):
    with pytest.raises(ValueError, match=f"k = {k} .* 3 vectors offer between 1 and 2"):
        nearest_neighbours(np.eye(3), k)


@pytest.mark.parametrize("vectors", [np.zeros((3, 2)), 2 * np.eye(3), np.ones(4), np.full((2, 2), np.nan)])
def test_vectors_that_are_not_unit_vectors_are_refused(vectors):
    with pytest.raises(ValueError, match="length 1"):
        nearest_neighbours(vectors, 1)
    with pytest.raises(ValueError, match="length 1"):
        list(similar_pairs(vectors, 0.9))


@given(coarse, st.floats(0.5, 1), st.booleans(), st.sampled_from([1, 3, 10, 1024]))
@settings(max_examples=60, deadline=None)
def test_similar_pairs_are_exactly_those_above_the_threshold_also_where_they_tie_with_it(
    vectors, threshold, tie, tile
):
    doubles = vectors.astype(float)
    similarity = np.round(doubles @ doubles.T, embeddings._DECIMALS)
    threshold = similarity[0, -1] if tie else threshold
    upper = zip(*np.triu_indices(len(vectors), 1))
    wanted = [(i, j, similarity[i, j]) for i, j in upper if similarity[i, j] >= threshold]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embeddings, "_TILE", tile)
        assert sorted(similar_pairs(vectors, threshold)) == wanted


def test_no_block_of_100_000_vectors_is_larger_than_stated():
    rows = [b.stop - b.start for b in embeddings._blocks(slice(0, 100_000), 100_000)]
    assert sum(rows) == 100_000
    assert max(rows) * 100_000 <= embeddings._BLOCK
    assert embeddings._BLOCK * 40 < 2**30


@pytest.fixture
def counted(monkeypatch):
    "An encoder without a model (a text's vector is made from its letters) that writes down what it was given."
    calls = []

    def encode(texts, source, revision, batch):
        calls.append(list(texts))
        return unit([np.bincount([ord(c) % 8 for c in t], minlength=8) + 0.1 for t in texts])

    def locate(model, revision=None):
        return model, None, model

    monkeypatch.setattr(embeddings, "_encode", encode)
    monkeypatch.setattr(embeddings, "locate_embedder", locate)
    return calls


def test_a_text_is_embedded_once_and_its_vector_does_not_depend_on_the_company(counted, tmp_path):
    first = embed(["a", "b", "a"], tmp_path, "m")
    assert (first[0] == first[2]).all() and first.dtype == np.float32
    second = embed(["c", "b", "c", "a"], tmp_path, "m")
    assert counted == [["a", "b"], ["c"]]
    assert (second[[3, 1]] == first[:2]).all()


def test_many_texts_are_kept_in_parts_so_that_a_killed_run_goes_on(counted, tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "_PART", 2)
    encode, texts = embeddings._encode, ["a", "b", "c", "d", "e"]

    def killed(part, *how):
        if "e" in part:
            raise KeyboardInterrupt
        return encode(part, *how)

    monkeypatch.setattr(embeddings, "_encode", killed)
    with pytest.raises(KeyboardInterrupt):
        embed(texts, tmp_path, "m")
    monkeypatch.setattr(embeddings, "_encode", encode)
    found = embed(texts, tmp_path, "m")
    assert counted == [["a", "b"], ["c", "d"], ["e"]] and (found == embed(texts, None, "m")).all()


def test_without_a_folder_nothing_is_kept(counted, tmp_path):
    first = embed(["a", "b", "a"], tmp_path, "m")
    assert (embed(["b"], None, "m") == first[1]).all()
    assert counted[-1] == ["b"]


def test_another_model_never_reads_this_models_vectors(counted, tmp_path):
    embed(["a"], tmp_path, "m1")
    embed(["a"], tmp_path, "m2")
    assert counted == [["a"], ["a"]]


def test_a_run_stopped_between_array_and_index_leaves_a_usable_cache(counted, tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(embeddings, "write_jsonl", stop)
        with pytest.raises(KeyboardInterrupt):
            embed(["a"], tmp_path, "m")
    assert embed(["a"], tmp_path, "m").shape == (1, 8) and counted == [["a"], ["a"]]
    assert embed(["a"], tmp_path, "m").shape == (1, 8) and len(counted) == 2
    assert not list(tmp_path.rglob("*.part"))


NOTHING = [
    ([], "non-empty list"),
    (["a", " "], "text 1 is empty"),
    (["a", None], "text 1 is empty or not a string"),
]


@pytest.mark.parametrize("texts, what", NOTHING)
def test_nothing_to_embed_is_refused(texts, what):
    with pytest.raises(ValueError, match=what):
        embed(texts)


def test_an_unknown_embedder_is_refused_and_the_known_one_named(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OSError, match="all-MiniLM-L6-v2"):
        locate_embedder("no-such-embedder")


def test_a_folder_is_identified_by_what_lies_in_it(tmp_path):
    (tmp_path / "modules.json").write_text("[]")
    folder, _, before = locate_embedder(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"w")
    _, _, after = locate_embedder(str(tmp_path))
    assert folder == str(tmp_path) and before != after


def test_the_packaged_model_gives_the_same_vectors_by_name_and_by_folder():
    folder = locate_embedder()[0]
    texts = [
        "What is the capital of France?",
        "Which metal has the symbol Au?",
        "Name the capital city of France.",
    ]
    by_name, by_folder = embed(texts), embed(texts, model=folder)
    assert np.allclose(by_name, by_folder, atol=1e-6)
    assert np.allclose(np.linalg.norm(by_name, axis=1), 1, atol=1e-6)
    assert by_name[0] @ by_name[2] > 0.85 > 0.3 > by_name[0] @ by_name[1]
