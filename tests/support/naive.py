"""The losses as losses.md's formulas read, in float64 NumPy with loops: slow, independent of torch, values only."""

import numpy as np

IGNORE = 255


def interpolate(maps, size):
    """Bi- or trilinear, corners not aligned: (N, C, *low) to (N, C, *size)."""
    for axis, new in enumerate(size, start=2):
        old = maps.shape[axis]
        position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, None)
        low = np.minimum(np.floor(position).astype(int), old - 1)
        high = np.minimum(low + 1, old - 1)
        shape = [1] * maps.ndim
        shape[axis] = new
        weight = (position - low).reshape(shape)
        maps = np.take(maps, low, axis) * (1 - weight) + np.take(maps, high, axis) * weight
    return maps


def labels_and_validity(target, num_classes):
    """Class ids (N, *size), or maps (N, C, *size) of a multiclass target, as maps, and what is valid."""
    if target.dtype.kind == "f":
        valid = (target != IGNORE).all(axis=1)
        return np.where(valid[:, None], target, 0), valid
    valid = (target >= 0) & (target < num_classes) & (target != IGNORE)
    one_hot = np.stack([(target == c) & valid for c in range(num_classes)], axis=1).astype(float)
    return one_hot, valid


def cross_entropy(logits, target):
    one_hot, valid = labels_and_validity(target, logits.shape[1])
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -(one_hot * log_softmax).sum() / max(valid.sum(), 1)


def binary_cross_entropy(logits, target):
    one_hot, valid = labels_and_validity(target, logits.shape[1])
    return ((np.logaddexp(0, logits) - one_hot * logits) * valid[:, None]).sum() / (valid.sum() + 1)


def pooled_size(size, pool, s):
    if s == 1 or pool == "interp":
        return tuple(side // s for side in size)
    # As many windows of s as fit into the padded side.
    return tuple(len(range(0, side + 2 * (s // 2) - s + 1, s)) for side in size)


def pooled(m, pool, s):
    """One map (*size), pooled."""
    if s == 1:
        return m
    pad = s // 2
    out = np.zeros(pooled_size(m.shape, pool, s))
    for index in np.ndindex(out.shape):
        block = m[tuple(slice(max(i * s - pad, 0), i * s - pad + s) for i in index)]
        out[index] = block.max() if pool == "max" else block.sum() / s**m.ndim
    return out


def resized(m, s, nearest):
    """One map, its sides resized to side // s: nearest, or linearly with aligned corners."""
    for axis in range(m.ndim):
        old = m.shape[axis]
        new = old // s
        if nearest:
            m = np.take(m, np.floor(np.arange(new) * (old / new)).astype(int), axis)
        else:
            position = np.arange(new) * (old - 1) / max(new - 1, 1)
            low = np.minimum(np.floor(position).astype(int), old - 1)
            high = np.minimum(low + 1, old - 1)
            weight = (position - low).reshape([-1 if a == axis else 1 for a in range(m.ndim)])
            m = np.take(m, low, axis) * (1 - weight) + np.take(m, high, axis) * weight
    return m


def rmi(logits, target, region_size, pool, pool_size, clamp):
    """By the textbook formula, with its inverse."""
    one_hot, valid = labels_and_validity(target, logits.shape[1])
    probability = 1 / (1 + np.exp(-logits)) * valid[:, None]
    probability = np.clip(probability, 1e-6, 1) if clamp else probability + 1e-6
    d, total = region_size ** (logits.ndim - 2), 0.0
    for n in range(logits.shape[0]):
        for c in range(logits.shape[1]):
            if pool == "interp" and pool_size > 1:
                y = resized(one_hot[n, c], pool_size, nearest=True)
                p = resized(probability[n, c], pool_size, nearest=False)
            else:
                y, p = pooled(one_hot[n, c], pool, pool_size), pooled(probability[n, c], pool, pool_size)
            windows = [
                tuple(slice(i, i + region_size) for i in index)
                for index in np.ndindex(*(side - region_size + 1 for side in y.shape))
            ]
            ys = np.stack([y[at].ravel() for at in windows], axis=1)
            ps = np.stack([p[at].ravel() for at in windows], axis=1)
            ys, ps = ys - ys.mean(axis=1, keepdims=True), ps - ps.mean(axis=1, keepdims=True)
            eye = 5e-4 * np.eye(d)
            m = ys @ ys.T - ys @ ps.T @ np.linalg.inv(ps @ ps.T + eye) @ ps @ ys.T
            total += 0.5 * np.linalg.slogdet(m + eye)[1] / d
    return total / logits.shape[0]
