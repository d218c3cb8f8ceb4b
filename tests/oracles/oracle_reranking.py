"""Naive float64 versions of the re-rankers, with dense matrices and loops over images."""

from functools import partial

import numpy as np


def squared_distances(x):
    x = np.asarray(x, np.float64)
    return np.stack([((x - row) ** 2).sum(axis=1) for row in x])


def order(distances):
    """All images by distance from each, itself first, equally far ones by index."""
    distances = np.array(distances, np.float64)
    np.fill_diagonal(distances, -1)
    return np.argsort(distances, axis=1, kind="stable")


def reciprocal(rank, i, k):
    """Members of N(i) that have i among their neighbors; k counts the image itself."""
    return [j for j in rank[i, :k].tolist() if i in rank[j, :k].tolist()]


def expanded(rank, i, k1):
    near = reciprocal(rank, i, k1 + 1)
    result = set(near)
    for j in near:
        nearer = reciprocal(rank, j, int(np.around(k1 / 2)) + 1)
        if 3 * len(set(nearer) & set(near)) > 2 * len(nearer):
            result |= set(nearer)
    return sorted(result)


def encodings(scaled, rank, k1, k2):
    """V of distances (n, n) that are squared and divided by their row's maximum."""
    count = len(scaled)
    v = np.zeros((count, count))
    for i in range(count):
        members = expanded(rank, i, k1)
        v[i, members] = np.exp(-scaled[i, members])
        v[i] /= v[i].sum()
    return v if k2 == 1 else np.stack([v[rank[i, :k2]].mean(axis=0) for i in range(count)])


def jaccard(v, rows):
    """Jaccard distances of the named rows of V to all rows."""
    return np.stack(
        [1 - np.minimum(v[i], v).sum(axis=1) / np.maximum(v[i], v).sum(axis=1) for i in rows]
    )


def k_reciprocal_of(squared, queries, k1=20, k2=6, lambda_value=0.3):
    largest = squared.max(axis=1, keepdims=True)
    scaled = squared / np.where(largest > 0, largest, 1)
    v = encodings(scaled, order(squared), k1, k2)
    block = jaccard(v, range(queries))[:, queries:]
    return (1 - lambda_value) * block + lambda_value * scaled[:queries, queries:]


def k_reciprocal(query, gallery, k1=20, k2=6, lambda_value=0.3):
    squared = squared_distances(np.concatenate([query, gallery]))
    return k_reciprocal_of(squared, len(query), k1, k2, lambda_value)


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _joined(query, gallery):
    x = unit(np.concatenate([query, gallery]))
    return x, x @ x.T, order(squared_distances(x)), len(query)


def query_expansion(query, gallery, k=10, alpha=0.0):
    x, cosine, rank, q = _joined(query, gallery)
    new = []
    for i in range(len(x)):
        new.append(sum(max(cosine[i, j], 0) ** alpha * x[j] for j in rank[i, :k]))
    return squared_distances(unit(new))[:q, q:]


average_query_expansion = query_expansion
alpha_query_expansion = partial(query_expansion, alpha=3.0)


def ecn(query, gallery, k=25, t=3, q=8):
    x, cosine, rank, queries = _joined(query, gallery)
    count = len(x)
    position = np.argsort(rank, axis=1)
    weight = np.maximum(k - position, 0)
    r = -(weight @ weight.T)

    def neighbors(i):
        near = rank[i, 1 : t + 1].tolist()
        return near + [m for j in near for m in rank[j, 1 : q + 1].tolist()]

    result = np.empty((queries, count - queries))
    for p in range(queries):
        for g in range(queries, count):
            terms = [r[j, g] for j in neighbors(p)] + [r[j, p] for j in neighbors(g)]
            mean = np.mean(terms)
            result[p, g - queries] = mean if mean != 0 else 1 - cosine[p, g]
    return result


def gnn(query, gallery, k1=26, k2=7, rounds=2, lambda_value=0.3):
    _, cosine, rank, q = _joined(query, gallery)
    a = np.zeros_like(cosine)
    for i, row in enumerate(rank):
        a[i, row[:k1]] = 1
    for _ in range(rounds):
        both = a + a.T
        a = unit([sum(cosine[i, j] ** 2 * both[j] for j in row[:k2]) for i, row in enumerate(rank)])
    score = (1 - lambda_value) * a @ a.T + lambda_value * cosine
    return 1 - score[:q, q:]


def diffusion(query, gallery, k=50, gamma=3.0, alpha=0.99, iterations=None):
    """Solved at once, as by enough iterations."""
    _, cosine, rank, q = _joined(query, gallery)
    count = len(rank)
    a = np.zeros((count, count))
    for i in range(count):
        for j in rank[i, 1 : k + 1]:
            if i in rank[j, 1 : k + 1]:
                a[i, j] = max(cosine[i, j], 0) ** gamma
    root = 1 / np.sqrt(a.sum(axis=1) + 1e-12)
    s = root[:, None] * a * root
    return -np.linalg.inv(np.eye(count) - alpha * s)[:q, q:]
