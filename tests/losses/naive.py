"""The losses as losses.md's formulas read, in float64 NumPy with loops: slow, independent of torch, values only."""

import numpy as np

IGNORE = 255


def interpolate(maps, size):
    """Bilinear, corners not aligned: (N, C, h, w) to (N, C, *size)."""
    for axis, new in zip((2, 3), size):
        old = maps.shape[axis]
        position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, None)
        low = np.minimum(np.floor(position).astype(int), old - 1)
        high = np.minimum(low + 1, old - 1)
        shape = [1] * 4
        shape[axis] = new
        weight = (position - low).reshape(shape)
        maps = np.take(maps, low, axis) * (1 - weight) + np.take(maps, high, axis) * weight
    return maps


def labels_and_validity(target, num_classes):
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
    """One (H, W) map, pooled."""
    if s == 1:
        return m
    pad = s // 2
    h, w = pooled_size(m.shape, pool, s)
    out = np.zeros((h, w))
    for i in range(h):
        for j in range(w):
            block = m[max(i * s - pad, 0) : i * s - pad + s, max(j * s - pad, 0) : j * s - pad + s]
            out[i, j] = block.max() if pool == "max" else block.sum() / s**2
    return out


def resized(m, s, nearest):
    """One (H, W) map, resized to (H // s, W // s): nearest, or bilinear with aligned corners."""
    for axis in (0, 1):
        old = m.shape[axis]
        new = old // s
        if nearest:
            m = np.take(m, np.floor(np.arange(new) * (old / new)).astype(int), axis)
        else:
            position = np.arange(new) * (old - 1) / max(new - 1, 1)
            low = np.minimum(np.floor(position).astype(int), old - 1)
            high = np.minimum(low + 1, old - 1)
            weight = (position - low).reshape((-1, 1) if axis == 0 else (1, -1))
            m = np.take(m, low, axis) * (1 - weight) + np.take(m, high, axis) * weight
    return m


def rmi(logits, target, region_size, pool, pool_size, clamp):
    """By the textbook formula, with its inverse."""
    one_hot, valid = labels_and_validity(target, logits.shape[1])
    probability = 1 / (1 + np.exp(-logits)) * valid[:, None]
    probability = np.clip(probability, 1e-6, 1) if clamp else probability + 1e-6
    d, total = region_size**2, 0.0
    for n in range(logits.shape[0]):
        for c in range(logits.shape[1]):
            if pool == "interp" and pool_size > 1:
                y = resized(one_hot[n, c], pool_size, nearest=True)
                p = resized(probability[n, c], pool_size, nearest=False)
            else:
                y, p = pooled(one_hot[n, c], pool, pool_size), pooled(probability[n, c], pool, pool_size)
            h, w = y.shape
            windows = [
                (slice(i, i + region_size), slice(j, j + region_size))
                for i in range(h - region_size + 1)
                for j in range(w - region_size + 1)
            ]
            ys = np.stack([y[at].ravel() for at in windows], axis=1)
            ps = np.stack([p[at].ravel() for at in windows], axis=1)
            ys, ps = ys - ys.mean(axis=1, keepdims=True), ps - ps.mean(axis=1, keepdims=True)
            eye = 5e-4 * np.eye(d)
            m = ys @ ys.T - ys @ ps.T @ np.linalg.inv(ps @ ps.T + eye) @ ps @ ys.T
            total += 0.5 * np.linalg.slogdet(m + eye)[1] / d
    return total / logits.shape[0]
