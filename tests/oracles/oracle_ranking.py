"""Naive float64 version of the retrieval scores, with one sorted list per query."""


def scores(distances, query_ids, gallery_ids, query_cams, gallery_cams, *, max_rank, zero):
    """Dict of cmc (list), mAP, mAP_trapezoid, mINP, valid, invalid; None without a valid query.

    Cameras None: only identity -1 is junk.
    """
    rows = []
    invalid = 0
    for i, identity in enumerate(query_ids):
        ranking = []
        for j, other in enumerate(gallery_ids):
            same_camera = query_cams is not None and query_cams[i] == gallery_cams[j]
            if other == -1 or (other == identity and same_camera):
                continue
            ranking.append((float(distances[i][j]), j, other == identity))
        matches = [match for _, _, match in sorted(ranking)]
        if any(matches):
            rows.append(_one_query(matches, max_rank))
        else:
            invalid += 1
    if not rows:
        return None
    count = len(rows) + (invalid if zero else 0)
    means = {key: sum(row[key] for row in rows) / count for key in rows[0] if key != "cmc"}
    cmc = [sum(row["cmc"][k] for row in rows) / count for k in range(max_rank)]
    return {**means, "cmc": cmc, "valid": len(rows), "invalid": invalid}


def _one_query(matches, max_rank):
    total = sum(matches)
    standard = trapezoid = 0.0
    old_recall, old_precision, seen, last = 0.0, 1.0, 0, 0
    for position, match in enumerate(matches):
        if match:
            seen += 1
            last = position + 1
            standard += seen / (position + 1) / total
        # As in the Matlab code: the area under each step of the precision-recall curve.
        recall, precision = seen / total, seen / (position + 1)
        trapezoid += (recall - old_recall) * (old_precision + precision) / 2
        old_recall, old_precision = recall, precision
    cmc = [float(any(matches[: k + 1])) for k in range(max_rank)]
    return {"mAP": standard, "mAP_trapezoid": trapezoid, "mINP": total / last, "cmc": cmc}
