"""Hierarchical k-means against FAISS run by hand, assignment against a slow walk, and vocabularies that stay usable."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from safetensors.numpy import save

from vlprep.cluster.assign import Assigner, AssignRule
from vlprep.cluster.polish import polish
from vlprep.cluster.quality import level_quality, quantisation_error
from vlprep.cluster.train import TrainSettings, node_rows, node_seed, train
from vlprep.cluster.vocabulary import FORMAT, Vocabulary, path_of, prefix, sensible_shape
from vlprep.errors import SettingsError

SETTINGS = TrainSettings(branching=4, depth=3, iterations=6, seed=3, points_per_centroid=100)


def mixture(count: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((60, dim)) * 3
    return (centres[rng.integers(60, size=count)] + rng.standard_normal((count, dim))).astype(np.float32)


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    return mixture(3000).astype(np.float16)


@pytest.fixture(scope="module")
def vocabulary(sample: np.ndarray) -> Vocabulary:
    return train(sample, SETTINGS)


def walk(vector: np.ndarray, vocabulary: Vocabulary) -> tuple[int, float]:
    """The slow way down, in float64; also the smallest margin of any choice on the way."""
    node, margin = 0, np.inf
    for level in range(1, vocabulary.depth + 1):
        first = node * vocabulary.branching
        children = vocabulary.centroids[level - 1][first : first + vocabulary.children[level - 1][node]]
        distances = ((children.astype(np.float64) - vector) ** 2).sum(1)
        ranked = np.sort(distances)
        if len(ranked) > 1:
            margin = min(margin, ranked[1] - ranked[0])
        node = first + int(distances.argmin())
    return node, margin


def test_every_node_equals_faiss_run_by_hand(sample: np.ndarray, vocabulary: Vocabulary) -> None:
    rows_of = {0: np.arange(len(sample))}
    for level in range(SETTINGS.depth):
        below: dict[int, np.ndarray] = {}
        for node, rows in rows_of.items():
            points = sample[node_rows(rows, level, node, SETTINGS)].astype(np.float32)
            by_hand = faiss.Kmeans(
                16, 4, niter=6, seed=node_seed(level, node, 3), min_points_per_centroid=1, max_points_per_centroid=100
            )
            by_hand.train(points)
            np.testing.assert_array_equal(vocabulary.centroids[level][node * 4 : node * 4 + 4], by_hand.centroids)
            choice = by_hand.index.search(sample[rows].astype(np.float32), 1)[1][:, 0]
            below |= {node * 4 + child: rows[choice == child] for child in range(4)}
        rows_of = below
        np.testing.assert_array_equal(vocabulary.counts[level], [len(rows) for rows in rows_of.values()])


def test_a_node_with_many_vectors_trains_on_a_seeded_draw(sample: np.ndarray) -> None:
    drawn = node_rows(np.arange(3000), 0, 0, SETTINGS)
    assert len(drawn) == 400
    assert len(set(drawn.tolist())) == 400
    np.testing.assert_array_equal(drawn, node_rows(np.arange(3000), 0, 0, SETTINGS))


def test_tree_equals_the_slow_walk(vocabulary: Vocabulary) -> None:
    vectors = mixture(700, seed=5)
    tokens, distances = Assigner(vocabulary, AssignRule.parse("tree"))(vectors)
    checked = 0
    for vector, token, distance in zip(vectors, tokens, distances, strict=True):
        expected, margin = walk(vector.astype(np.float64), vocabulary)
        if margin > 1e-3:
            assert token == expected
            assert distance == pytest.approx(((vocabulary.centroids[-1][token] - vector) ** 2).sum(), rel=1e-4)
            checked += 1
    assert checked > 650


def test_a_wide_beam_is_flat(vocabulary: Vocabulary) -> None:
    vectors = mixture(500, seed=6)
    flat, flat_distance = Assigner(vocabulary, AssignRule.parse("flat"))(vectors)
    wide, wide_distance = Assigner(vocabulary, AssignRule.parse("beam:16"))(vectors)
    tree, _ = Assigner(vocabulary, AssignRule.parse("tree"))(vectors)
    np.testing.assert_array_equal(wide, flat)
    np.testing.assert_allclose(wide_distance, flat_distance, rtol=1e-3)
    assert 0 < (tree != flat).mean() < 0.6


def test_wider_beams_never_do_worse(vocabulary: Vocabulary) -> None:
    vectors = mixture(500, seed=7)
    errors = [Assigner(vocabulary, AssignRule(beam))(vectors)[1].mean() for beam in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]


def test_thin_nodes_get_fewer_children_and_codes_stay(tmp_path) -> None:
    points = np.array([[0, 0], [0, 1], [10, 0], [10, 1], [10, 2], [20, 5]], np.float32)
    vocabulary = train(points, TrainSettings(branching=4, depth=2, iterations=5))
    assert vocabulary.children[1].sum() == vocabulary.present(2).sum() < 16
    tokens, distances = Assigner(vocabulary, AssignRule())(points)
    assert vocabulary.present(2)[tokens].all()
    for beam in (0, 2, 16):
        assert vocabulary.present(2)[Assigner(vocabulary, AssignRule(beam))(points)[0]].all()
    assert len(set(tokens.tolist())) == 6
    assert distances.max() < 1e-3
    quality = level_quality(vocabulary, 2)
    assert (quality.codes, quality.absent, quality.empty) == (16, 10, 0)


def test_identical_vectors_make_a_usable_vocabulary() -> None:
    vocabulary = train(np.ones((200, 8), np.float32), TrainSettings(branching=3, depth=2, iterations=3))
    tokens, _ = Assigner(vocabulary, AssignRule())(np.ones((5, 8), np.float32))
    assert vocabulary.present(2)[tokens].all()


def test_prefix_and_path(vocabulary: Vocabulary) -> None:
    tokens = np.array([0, 17, 63], np.uint16)
    np.testing.assert_array_equal(prefix(tokens, vocabulary, 1), [0, 1, 3])
    np.testing.assert_array_equal(prefix(tokens, vocabulary, 3), tokens)
    assert path_of(27, vocabulary) == (1, 2, 3)


def test_save_and_load(vocabulary: Vocabulary, tmp_path) -> None:
    path = tmp_path / "v.safetensors"
    vocabulary.save(path)
    first = path.read_bytes()
    loaded = Vocabulary.load(path)
    for ours, theirs in zip(vocabulary.centroids + vocabulary.counts, loaded.centroids + loaded.counts, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.settings == vocabulary.settings
    loaded.save(path)
    assert path.read_bytes() == first


def test_other_files_are_refused(tmp_path) -> None:
    path = tmp_path / "v.safetensors"
    with pytest.raises(SettingsError, match="cluster-video"):
        Vocabulary.load(path)
    path.write_bytes(b"not a vocabulary at all")
    with pytest.raises(SettingsError, match=r"v\.safetensors"):
        Vocabulary.load(path)
    for header in ("{}", "{"):
        path.write_bytes(save({}, {FORMAT: header}))
        with pytest.raises(SettingsError, match=r"v\.safetensors: not a vocabulary file, or a damaged one"):
            Vocabulary.load(path)


def test_training_twice_gives_the_same_bytes(sample: np.ndarray, vocabulary: Vocabulary) -> None:
    again = train(sample, SETTINGS)
    for ours, theirs in zip(vocabulary.centroids, again.centroids, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_polish_lowers_the_error_and_keeps_the_codes(sample: np.ndarray, vocabulary: Vocabulary) -> None:
    heard: list[float] = []
    polished = polish(sample, vocabulary, 4, beam=4, on_iteration=lambda _, error: heard.append(error))
    assert heard == sorted(heard, reverse=True)
    held_out = mixture(1000, seed=8)
    before = Assigner(vocabulary, AssignRule(4))(held_out)[1].mean()
    after = Assigner(polished, AssignRule(4))(held_out)[1].mean()
    assert after < before
    assert polished.counts[-1].sum() == len(sample)
    np.testing.assert_array_equal(polished.children[2], vocabulary.children[2])
    assert polished.settings["polish"] == 4


def test_error_falls_with_depth(sample: np.ndarray, vocabulary: Vocabulary) -> None:
    vectors = sample.astype(np.float32)
    tokens, distances = Assigner(vocabulary, AssignRule())(vectors)
    errors = quantisation_error(vectors, tokens, vocabulary)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == pytest.approx(distances.mean() / vectors.var(axis=0).sum(), rel=1e-3)


def test_small_data_is_warned_about(caplog) -> None:
    train(mixture(300), TrainSettings(branching=12, depth=2, iterations=2))
    assert "300 vectors for 144 clusters" in caplog.text
    assert "--branching 7 --depth 1 (7 tokens) makes sense" in caplog.text
    train(mixture(30), TrainSettings(branching=12, depth=2, iterations=2))
    assert "no vocabulary can be made of so few" in caplog.text


@pytest.mark.parametrize(
    ("vectors", "shape"),
    [(20736 * 39, (12, 4)), (20736 * 39 - 1, (12, 3)), (12 * 39, (12, 1)), (12 * 39 - 1, (11, 1)), (77, (1, 1))],
)
def test_the_shape_that_data_can_fill(vectors: int, shape: tuple[int, int]) -> None:
    assert sensible_shape(vectors, 12, 4) == shape


@pytest.mark.parametrize("text", ["beam:0", "beam", "nearest", ""])
def test_unknown_rules_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="beam:8"):
        AssignRule.parse(text)


def test_too_many_codes_are_refused() -> None:
    with pytest.raises(SettingsError, match="16-bit"):
        TrainSettings(branching=12, depth=5)
    with pytest.raises(SettingsError, match="extract features"):
        train(np.empty((0, 4), np.float32), TrainSettings())
