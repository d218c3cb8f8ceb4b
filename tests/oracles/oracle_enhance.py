"""Naive float64 versions of pose, attribute and tracklet formulas from the papers."""

import math

import numpy as np


def softmax(z):
    z = np.asarray(z, "float64")
    e = np.exp(z - z.max())
    return e / e.sum()


def sigmoid(z):
    return 1 / (1 + np.exp(-np.asarray(z, "float64")))


def unit(x):
    x = np.asarray(x, "float64")
    return x / max(math.sqrt(float((x * x).sum())), 1e-300)


# --- Pose


def average_max(maps):
    maps = np.asarray(maps, "float64")
    return maps.mean((1, 2)) + maps.max((1, 2))


def heatmaps(points, size, sigma=1.0):
    height, width = size
    out = np.zeros((len(points), height, width, points.shape[1]))
    for b, row in enumerate(points.astype("float64")):
        for k, (x, y, confidence) in enumerate(row):
            for i in range(height):
                for j in range(width):
                    square = (j + 0.5 - x * width) ** 2 + (i + 0.5 - y * height) ** 2
                    if confidence > 0:
                        out[b, i, j, k] = confidence * math.exp(-square / (2 * sigma**2))
    return out


def pose_pooling(maps, heat, confidence, groups, sharpness=10.0):
    maps, heat = np.asarray(maps, "float64"), np.asarray(heat, "float64")
    parts = np.zeros((len(maps), len(groups), maps.shape[3]))
    visibility = np.zeros((len(maps), len(groups)))
    for b in range(len(maps)):
        for p, group in enumerate(groups):
            warm = np.max([heat[b, :, :, k] for k in group], axis=0)
            weights = softmax(sharpness * warm.ravel())
            parts[b, p] = weights @ maps[b].reshape(-1, maps.shape[3])
            visibility[b, p] = np.mean([confidence[b, k] for k in group])
        if visibility[b].sum() > 0:
            visibility[b] /= visibility[b].sum()
    return parts, visibility


def visible_parts(whole, parts, visibility):
    return np.array(
        [
            np.concatenate(
                [unit(w), *(math.sqrt(max(c, 0)) * unit(v) for c, v in zip(cs, vs, strict=True))]
            )
            for w, vs, cs in zip(whole, parts, visibility, strict=True)
        ]
    )


def visible(parts, visibility, other_parts, other_visibility, whole):
    out = np.zeros((len(parts), len(other_parts)))
    for i in range(len(parts)):
        for j in range(len(other_parts)):
            shared = [v * w for v, w in zip(visibility[i], other_visibility[j], strict=True)]
            apart = [
                math.dist(f, g)
                for f, g in zip(
                    parts[i].astype("float64"), other_parts[j].astype("float64"), strict=True
                )
            ]
            of_parts = sum(s * d for s, d in zip(shared, apart, strict=True))
            out[i, j] = (whole[i, j] + of_parts) / (1 + sum(shared))
    return out


def visible_identity(labels, logits, visibility, label_smoothing=0.1):
    """`Σ_p c_p CE_p`, the mean over images."""
    total = 0.0
    for label, parts, seen in zip(labels, np.asarray(logits, "float64"), visibility, strict=True):
        for z, c in zip(parts, seen, strict=True):
            log = z - z.max() - math.log(np.exp(z - z.max()).sum())
            target = np.full(len(z), label_smoothing / len(z))
            target[label] += 1 - label_smoothing
            total -= c * float(target @ log)
    return total / len(labels)


# --- Attributes


def attribute_probabilities(logits, exclusive=()):
    out = sigmoid(logits)
    for group in exclusive:
        for row, z in zip(out, np.asarray(logits, "float64"), strict=True):
            row[list(group)] = softmax(z[list(group)])
    return out


def reweighted(probabilities, kernel, bias):
    a = np.asarray(probabilities, "float64")
    return sigmoid(a @ kernel.astype("float64") + bias) * a


def attribute_loss(targets, logits, rates, exclusive=()):
    grouped = {i for group in exclusive for i in group}
    total = 0.0
    for t, z in zip(np.asarray(targets), np.asarray(logits, "float64"), strict=True):
        for m, rate in enumerate(rates):
            if m in grouped or t[m] < 0:
                continue
            cost = max(z[m], 0) - z[m] * (t[m] > 0) + math.log1p(math.exp(-abs(z[m])))
            total += math.exp(1 - rate if t[m] > 0 else rate) * cost
        for group in exclusive:
            yes = [place for place, m in enumerate(group) if t[m] > 0]
            if len(yes) == 1:
                most = z[list(group)].max()
                total += most + math.log(np.exp(z[list(group)] - most).sum()) - z[group[yes[0]]]
    return total / len(targets)


def mean_accuracies(told, true):
    """`(TPR + TNR)/2` of each attribute, None where there are not both; targets −1 are left out."""
    scores = []
    for m in range(true.shape[1]):
        hit = {0: [], 1: []}
        for p, t in zip(told[:, m], true[:, m], strict=True):
            if t >= 0:
                hit[int(t)].append(int(p) == t)
        both = hit[0] and hit[1]
        scores.append((np.mean(hit[0]) + np.mean(hit[1])) / 2 if both else None)
    return scores


def instances(told, true):
    """Accuracy, precision and recall: means over the images with a defined value."""
    sums = ([], [], [])
    for row, target in zip(told, true, strict=True):
        known = [m for m in range(len(target)) if target[m] >= 0]
        a = {m for m in known if target[m] > 0}
        b = {m for m in known if row[m]}
        for out, below in zip(sums, (a | b, b, a), strict=True):
            if below:
                out.append(len(a & b) / len(below))
    return [float(np.mean(out)) for out in sums]


# --- Tracklets


def frames(x, mask):
    return [np.asarray(row, "float64")[np.asarray(m) > 0] for row, m in zip(x, mask, strict=True)]


def temporal_mean(inputs):
    return np.array(
        [f.mean(0) if len(f) else 0 * x[0] for f, x in zip(frames(*inputs), inputs[0], strict=True)]
    )


def temporal_max(inputs):
    return np.array(
        [f.max(0) if len(f) else 0 * x[0] for f, x in zip(frames(*inputs), inputs[0], strict=True)]
    )


def temporal_attention(inputs, spatial, spatial_bias, across, across_bias):
    x, mask = np.asarray(inputs[0], "float64"), np.asarray(inputs[1]) > 0
    seen = np.asarray(inputs[2] if len(inputs) > 2 else inputs[0], "float64")
    context, out = len(across), []
    for clip, there, maps in zip(x, mask, seen, strict=True):
        flat = maps.reshape(len(maps), -1)
        hidden = np.maximum(flat @ spatial + spatial_bias, 0) * there[:, None]
        logits = []
        for t in range(len(clip)):
            z = float(across_bias[0])
            for c in range(context):
                at = t + c - context // 2
                if 0 <= at < len(clip):
                    z += float(hidden[at] @ across[c, :, 0])
            logits.append(max(z, 0.0))
        kept = [t for t in range(len(clip)) if there[t]]
        weights = softmax([logits[t] for t in kept]) if kept else []
        out.append(sum((w * clip[t] for w, t in zip(weights, kept, strict=True)), 0 * clip[0]))
    return np.array(out)


def temporal_recurrent(inputs, kernel, recurrent, bias):
    out = []
    width = recurrent.shape[0]
    for clip in frames(*inputs):
        h, c, seen = np.zeros(width), np.zeros(width), []
        for x in clip:
            i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            seen.append(h)
        out.append(np.mean(seen, axis=0) if seen else np.zeros(width))
    return np.array(out)


def set_distance(a, b, kind):
    d = np.array([[math.dist(x, y) for y in b] for x in a])
    if kind == "min":
        return d.min()
    if kind == "mean":
        return d.mean()
    if kind == "hausdorff":
        return max(*(row.min() for row in d), *(column.min() for column in d.T))
    return (np.mean([row.min() for row in d]) + np.mean([column.min() for column in d.T])) / 2
