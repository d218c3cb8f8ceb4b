"""Naive loops for verification and open-set identification scores."""

import itertools
import math


def rates(distances, same, threshold):
    """FAR and TAR of accepting `d <= threshold`."""
    genuine = [d for d, s in zip(distances, same, strict=True) if s]
    impostor = [d for d, s in zip(distances, same, strict=True) if not s]
    far = sum(d <= threshold for d in impostor) / len(impostor)
    return far, sum(d <= threshold for d in genuine) / len(genuine)


def tar_at_far(distances, same, far):
    points = [rates(distances, same, t) for t in (-math.inf, *distances)]
    return max(tar for rate, tar in points if rate <= far)


def threshold_at_far(distances, same, far):
    seen = (-math.inf, *distances)
    return max(t for t in seen if rates(distances, same, t)[0] <= far)


def auc(distances, same):
    genuine = [d for d, s in zip(distances, same, strict=True) if s]
    impostor = [d for d, s in zip(distances, same, strict=True) if not s]
    wins = sum((g < i) + 0.5 * (g == i) for g in genuine for i in impostor)
    return wins / len(genuine) / len(impostor)


def eer(distances, same):
    """Intersection of the lines between (FAR, FRR) of neighboring thresholds with FAR = FRR."""
    points = [rates(distances, same, t) for t in (-math.inf, *sorted(set(distances)))]
    for (far0, tar0), (far1, tar1) in itertools.pairwise(points):
        a, b = far0 - (1 - tar0), far1 - (1 - tar1)
        if a < 0 <= b:
            return far0 + (far1 - far0) * (-a) / (b - a)
    raise AssertionError("the rates always cross")


def open_set(distances, query_ids, gallery_ids, query_cams, gallery_cams):
    """List ("known", distance and rank of the mate), ("unknown", nearest) or "out" per probe."""
    probes = []
    for i, row in enumerate(distances):
        seen = [
            (d, j)
            for j, d in enumerate(row)
            if gallery_ids[j] != -1
            and not (gallery_ids[j] == query_ids[i] and gallery_cams[j] == query_cams[i])
        ]
        seen.sort()
        if query_ids[i] not in [g for g in gallery_ids if g != -1]:
            probes.append(("unknown", seen[0][0] if seen else math.inf))
            continue
        ranks = [r for r, (_, j) in enumerate(seen, 1) if gallery_ids[j] == query_ids[i]]
        probes.append(("known", seen[ranks[0] - 1][0], ranks[0]) if ranks else "out")
    return probes


def dir_at_far(probes, far, rank):
    known = [p for p in probes if p[0] == "known"]
    unknown = [p for p in probes if p[0] == "unknown"]
    best = 0.0
    for t in [-math.inf] + [p[1] for p in known + unknown]:
        if sum(p[1] <= t for p in unknown) / len(unknown) <= far:
            best = max(best, sum(p[1] <= t and p[2] <= rank for p in known) / len(known))
    return best
