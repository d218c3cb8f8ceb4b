"""Clustering: published scores, comparison with scikit-learn and SciPy, and bad input."""

import itertools

import numpy as np
import oracle_reranking
import pytest
from PIL import Image
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import csr_matrix
from scipy.spatial.distance import pdist, squareform
from sklearn.cluster import DBSCAN
from sklearn.metrics import silhouette_score

from keras_reid import visualize
from keras_reid.errors import InputError
from keras_reid.evaluation import cluster, cluster_scores, clustering
from keras_reid.evaluation.clusters import (
    EPS,
    K1,
    agreement,
    average_linkages,
    silhouette,
)


def people(persons=20, images=10, spread=0.35, seed=0):
    """Features (n, 16) and who they show."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(persons), images))
    centers = random.normal(size=(persons, 16))
    x = centers[labels] + spread * random.normal(size=(len(labels), 16))
    return x.astype("float32"), labels


def partition(labels):
    """Groups of images, whatever their numbers; those of -1 alone."""
    groups = {}
    for i, label in enumerate(labels):
        groups.setdefault(label if label >= 0 else ("alone", i), []).append(i)
    return sorted(groups.values())


def oracle_jaccard(x, k1=20, k2=6):
    squared = oracle_reranking.squared_distances(x)
    scaled = squared / squared.max(axis=1, keepdims=True)
    v = oracle_reranking.encodings(scaled, oracle_reranking.order(squared), k1, k2)
    jaccard = oracle_reranking.jaccard(v, range(len(x)))
    np.fill_diagonal(jaccard, 0)
    return np.maximum((jaccard + jaccard.T) / 2, 0)


def test_cluster_scores_match_published_values():
    scores = cluster_scores([0, 0, 0, 1, 1, 2], np.array([0, 0, 1, 1, 1, 2]))
    assert scores.pair_f1 == pytest.approx(0.5, abs=1e-12)
    assert scores.bcubed_f1 == pytest.approx(7 / 9, abs=1e-12)
    assert scores.nmi == pytest.approx(0.6853314789615865, abs=1e-12)
    assert (scores.images, scores.persons, scores.clusters, scores.noise) == (6, 3, 3, 0)


@pytest.mark.parametrize("seed", range(5))
def test_cluster_scores_match_counted_pairs(seed):
    random = np.random.default_rng(seed)
    labels, clusters = random.integers(6, size=40), random.integers(-1, 7, size=40)
    scores = cluster_scores(labels, clusters)
    group = np.where(clusters < 0, 100 + np.arange(40), clusters)
    pairs = list(itertools.combinations(range(40), 2))
    together = sum(group[i] == group[j] for i, j in pairs)
    same = sum(labels[i] == labels[j] for i, j in pairs)
    both = sum(labels[i] == labels[j] and group[i] == group[j] for i, j in pairs)
    assert scores.pair_precision == pytest.approx(both / together, abs=1e-12)
    assert scores.pair_recall == pytest.approx(both / same, abs=1e-12)
    right = (labels[:, None] == labels) & (group[:, None] == group)
    precision = np.mean(right.sum(1) / (group[:, None] == group).sum(1))
    recall = np.mean(right.sum(1) / (labels[:, None] == labels).sum(1))
    assert scores.bcubed_precision == pytest.approx(precision, abs=1e-12)
    assert scores.bcubed_recall == pytest.approx(recall, abs=1e-12)
    f1 = 2 * precision * recall / (precision + recall)
    assert scores.bcubed_f1 == pytest.approx(f1, abs=1e-12)
    assert scores.noise == (clusters < 0).sum()


def test_cluster_scores_perfect_and_all_noise_groups():
    labels = ["a", "a", "b", "b"]
    assert cluster_scores(labels, np.array([5, 5, 2, 2])).pair_f1 == 1
    alone = cluster_scores(labels, np.array([-1, -1, -1, -1]))
    assert (alone.pair_precision, alone.pair_recall, alone.pair_f1) == (1, 0, 0)
    assert (alone.bcubed_precision, alone.clusters, alone.noise) == (1, 0, 4)
    assert "0 of 2 persons" in str(alone)
    assert alone.images == 4


@pytest.mark.parametrize("spread", [0.3, 0.5])
@pytest.mark.parametrize("options", [{}, {"eps": 0.4, "k1": 8, "k2": 3}, {"min_samples": 8}])
def test_cluster_dbscan_matches_scikit_learn(spread, options):
    x, _ = people(spread=spread)
    options = {"eps": 0.6, "min_samples": 4, "k1": 20, "k2": 6, **options}
    found = cluster(x, **options)
    lists = {name: options.pop(name) for name in ("k1", "k2")}
    jaccard = oracle_jaccard(x, **lists)
    expected = DBSCAN(metric="precomputed", **options).fit(jaccard)
    core = expected.core_sample_indices_  # who gets a border image depends on the order
    assert len(core) > 50
    assert partition(found[core]) == partition(expected.labels_[core])
    np.testing.assert_array_equal(found == -1, expected.labels_ == -1)


@pytest.mark.parametrize("eps", [0.3, 0.6, 0.8, 0.95])
def test_cluster_agglomerative_matches_scipy_average_linkage(eps):
    x, _ = people(spread=0.4)
    tree = linkage(squareform(oracle_jaccard(x), checks=False), "average")
    expected = fcluster(tree, eps, "distance")
    found = cluster(x, "agglomerative", eps, k1=20, k2=6)
    assert found.min() == 0
    assert partition(found) == partition(expected)


def test_average_linkages_missing_distances_count_as_one():
    near = csr_matrix(np.array([[0, 0.1, 0.2], [0.1, 0, 0.0], [0.2, 0.0, 0]]))
    both = average_linkages(near, [0.5, 0.7])  # (0.2 + 1) / 2 = 0.6
    assert [partition(labels) for labels in both] == [[[0, 1], [2]], [[0, 1, 2]]]


@pytest.mark.parametrize("seed", range(3))
def test_silhouette_matches_scikit_learn(seed):
    x, _ = people(spread=0.8, seed=seed)
    jaccard = oracle_jaccard(x, 10, 3)
    labels = cluster(x, eps=0.5, k1=10, k2=3)
    alone = labels == -1
    assert alone.any()
    groups = np.where(alone, labels.max() + 1 + np.cumsum(alone), labels)
    expected = silhouette_score(jaccard, groups, metric="precomputed")
    assert silhouette(csr_matrix(1 - jaccard), labels) == pytest.approx(expected, abs=1e-6)
    assert clustering(x, eps=0.5, k1=10, k2=3).silhouette == pytest.approx(expected, abs=1e-5)
    assert silhouette(csr_matrix(1 - jaccard), np.zeros(len(x), int)) == -1


@pytest.mark.first(1)
@pytest.mark.parametrize("method", ["dbscan", "agglomerative"])
@pytest.mark.parametrize(("persons", "images"), [(12, 10), (51, 8), (200, 4), (8, 40)])
def test_clustering_default_parameters_recover_number_of_persons(method, persons, images):
    """The number of groups is the number of persons, for few and for many images of each."""
    x, labels = people(persons, images, spread=0.45)
    found = clustering(x, method)
    assert found.k1 in K1
    assert found.eps in EPS[method]
    assert 2 <= found.k2 <= 6
    scores = cluster_scores(labels, found.labels)
    assert scores.pair_f1 > 0.8
    assert 0.8 * persons <= scores.clusters <= 1.5 * persons
    assert found.largest < 0.2
    np.testing.assert_array_equal(cluster(x, method), found.labels)


@pytest.mark.nightly
def test_clustering_without_pairs_selects_best_silhouette():
    x, _ = people(spread=0.5)
    found = clustering(x)
    tried = [clustering(x, eps=eps, k1=k1) for eps in EPS["dbscan"] for k1 in K1]
    assert found.silhouette == max(one.silhouette for one in tried)
    only = clustering(x, k1=10)
    assert (only.k1, only.k2) == (10, 3)
    assert only.silhouette == max(one.silhouette for one in tried if one.k1 == 10)
    assert clustering(x, eps=0.5).eps == 0.5


def test_agreement_matches_pair_counts():
    x, labels = people(6, 5, spread=0.6)
    groupings = [labels, np.where(labels < 2, 0, labels), np.full(len(x), -1), labels // 2]
    sure, possible = np.quantile(pdist(x), [0.08, 0.16])
    expected = []
    for groups in groupings:
        together = near = both = fine = 0
        for i in range(len(x)):
            for j in range(i):
                distance = np.linalg.norm(x[i] - x[j])
                one = groups[i] == groups[j] != -1
                near += distance <= sure
                together += one
                both += one and distance <= sure
                fine += one and distance <= possible
        recall, precision = both / near, fine / max(together, 1)
        expected.append(2 * recall * precision / max(recall + precision, 1e-9))
    assert len({round(value, 6) for value in expected}) == len(groupings)
    found = agreement(x, groupings, (sure, possible))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.slow
def test_clustering_with_pairs_selects_best_agreement():
    x, _ = people(30, 4, spread=0.5)
    pairs = tuple(np.quantile(pdist(x), [0.01, 0.03]))
    found = clustering(x, min_samples=2, pairs=pairs)
    tried = [
        clustering(x, eps=eps, k1=k1, min_samples=2).labels for eps in EPS["dbscan"] for k1 in K1
    ]
    assert agreement(x, [found.labels], pairs)[0] == max(agreement(x, tried, pairs)) > 0


@pytest.mark.slow
@pytest.mark.real
def test_clustering_250_real_persons_reaches_pair_f1(real_data):
    stored = np.load(real_data / "data/features/market-retail0288.npz")
    chosen = np.random.default_rng(0).choice(np.unique(stored["gp"]), 250, replace=False)
    kept = np.isin(stored["gp"], chosen)
    found = clustering(stored["g"][kept])
    assert cluster_scores(stored["gp"][kept], found.labels).pair_f1 > 0.8


@pytest.mark.first(1)
@pytest.mark.parametrize("method", ["dbscan", "agglomerative"])
def test_cluster_separated_persons_are_exact_in_any_order(method):
    x, labels = people(images=25, spread=0.1)
    found = cluster(x, method)
    assert cluster_scores(labels, found).pair_f1 == 1
    order = np.random.default_rng(1).permutation(len(x))
    assert partition(cluster(x[order], method)[np.argsort(order)]) == partition(found)


def test_cluster_labels_are_sorted_by_size():
    x, _ = people(spread=0.5)
    found = cluster(x, "agglomerative")
    sizes = np.bincount(found)
    assert (np.diff(sizes) <= 0).all()


def test_cluster_single_and_identical_images_return_expected_labels():
    assert cluster(np.ones((1, 3)), "agglomerative").tolist() == [0]
    assert cluster(np.ones((1, 3))).tolist() == [-1]
    assert cluster(np.zeros((6, 3))).tolist() == [0] * 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (np.ones((3, 2)), "kmeans"),
            "one of dbscan, agglomerative, got 'kmeans'",
        ),
        ((np.ones((3, 2)), "dbscan", 1.0), r"`eps` must be in \(0, 1\), got 1.0"),
        ((np.ones((3, 2)), "dbscan", 0.5, 0), "`min_samples` must be at least 1, got 0"),
        ((np.ones(3),), "a 2-D array"),
        ((np.full((3, 2), np.nan),), "finite in float32"),
    ],
)
def test_cluster_bad_input_raises(arguments, message):
    with pytest.raises(InputError, match=message):
        cluster(*arguments)


@pytest.mark.parametrize(
    ("labels", "clusters", "message"),
    [
        (
            [1, 2],
            np.array([1.0, 2.0]),
            r"`clusters` must be integers or strings of the shape \(2,\)",
        ),
        ([1, 2, 3], np.array([1, 2]), r"`clusters` .*\(3,\), got int64 \(2,\)"),
        ([], np.array([], int), r"of the shape \(1,\)"),
    ],
)
def test_cluster_scores_bad_columns_raise(labels, clusters, message):
    with pytest.raises(InputError, match=message):
        cluster_scores(labels, clusters)


def test_draw_groups_shows_largest_groups(tmp_path):
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    paths, groups = [], []
    for group, count in ((2, 2), (0, 3), (-1, 4)):
        for i in range(count):
            paths.append(tmp_path / f"{group}-{i}.png")
            Image.new("RGB", (10, 30), colors[group]).save(paths[-1])
            groups.append(group)
    sheet = visualize.draw_groups(paths, np.array(groups), columns=4, height=40)
    assert sheet.size == (4 * 20, 2 * 52)
    for x, y, color in ((10, 30, 0), (50, 30, 0), (10, 82, 2), (30, 82, 2)):
        assert sheet.getpixel((x, y)) == colors[color]
    for x, y in ((70, 30), (50, 82)):
        assert sheet.getpixel((x, y)) == (255, 255, 255)
    assert visualize.draw_groups(paths, np.array(groups), rows=1, height=40).size[1] == 52
    with pytest.raises(InputError, match="9 images in no group"):
        visualize.draw_groups(paths, np.full(9, -1))


def test_draw_groups_with_embeddings_shows_central_and_farthest_images(tmp_path):
    """Seven images on a line, the mean at the third: the sheet of four begins there."""
    paths = []
    for i in range(7):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.new("RGB", (20, 40), (30 * i, 0, 0)).save(paths[-1])
    places = np.array([[0.0], [1], [2], [3], [2.5], [2.2], [100]])  # the mean is 15.8
    sheet = visualize.draw_groups(paths, np.zeros(7, int), places, columns=3, height=40)
    reds = [sheet.getpixel((20 * column + 10, 12 + 20))[0] // 30 for column in range(3)]
    assert reds == [3, 4, 6]
    alone = visualize.draw_groups(paths, np.zeros(7, int), places, columns=2, height=40)
    assert [alone.getpixel((20 * column + 10, 32))[0] // 30 for column in range(2)] == [3, 4]
