// Region covariances of pooled maps, and their gradient. For the formulas see rmiseg/kernels/regions.py.
//
// Products of maps at every lag, instead of products of regions: (2R - 1)^2 of them instead of R^4.

#include <cmath>
#include <limits>

#include "common.h"

// The same fields in the same order stand in __init__.py.
struct Regions {
    int64_t threads;
    int64_t maps, height, width, region_size, is_double;
    void* probabilities;    // (maps, height, width) float32, or float64 if is_double; their gradient takes their place
    const void* labels;     // the same
    double* covariance;     // (maps, 2d, 2d), out
    const double* weights;  // (maps, d, 2d): gradient in a region's p, from its centered p and y
};

namespace {

typedef double Lanes __attribute__((vector_size(64)));
typedef double LooseLanes __attribute__((vector_size(64), aligned(8)));
constexpr int64_t LANES = 8;

INLINE Lanes lanes(const double* a) { return *reinterpret_cast<const LooseLanes*>(a); }

LEAF double sum(const double* a, int64_t count) {
    Lanes first{}, second{};
    int64_t i = 0;
    for (; i + 2 * LANES <= count; i += 2 * LANES) {
        first += lanes(a + i);
        second += lanes(a + i + LANES);
    }
    first += second;
    double total = 0;
    for (int64_t lane = 0; lane < LANES; ++lane) total += first[lane];
    for (; i < count; ++i) total += a[i];
    return total;
}

LEAF double dot(const double* a, const double* b, int64_t count) {
    Lanes first{}, second{};
    int64_t i = 0;
    for (; i + 2 * LANES <= count; i += 2 * LANES) {
        first += lanes(a + i) * lanes(b + i);
        second += lanes(a + i + LANES) * lanes(b + i + LANES);
    }
    first += second;
    double total = 0;
    for (int64_t lane = 0; lane < LANES; ++lane) total += first[lane];
    for (; i < count; ++i) total += a[i] * b[i];
    return total;
}

// Widens a map to float64; returns whether a value is not zero.
template <class T>
LEAF bool widen(const T* __restrict map, int64_t count, double* __restrict out) {
    int nonzero = 0;
    for (int64_t i = 0; i < count; ++i) {
        out[i] = map[i];
        nonzero |= map[i] != 0;
    }
    return nonzero;
}

LEAF void subtract(double value, int64_t count, double* __restrict out) {
    for (int64_t i = 0; i < count; ++i) out[i] -= value;
}

// out[j] = constant + sum of kernel[kind][di][dj] map[kind][i + di][j + dj], for `count` columns j. The pointers of the
// maps are at pixel (i, 0), that of the kernel at lag 0.
LEAF void convolve(const double* const map[2], int64_t width, const double* const kernel[2], int64_t side, int64_t top,
                   int64_t bottom, int64_t left, int64_t right, double constant, int64_t count, double* __restrict out) {
    int64_t j = 0;
    for (; j + 2 * LANES <= count; j += 2 * LANES) {
        Lanes first = constant - Lanes{}, second = first;
        for (int kind = 0; kind < 2; ++kind)
            for (int64_t di = top; di <= bottom; ++di) {
                const double *row = map[kind] + di * width + j, *weight = kernel[kind] + di * side;
                for (int64_t dj = left; dj <= right; ++dj) {
                    first += weight[dj] * lanes(row + dj);
                    second += weight[dj] * lanes(row + dj + LANES);
                }
            }
        *reinterpret_cast<LooseLanes*>(out + j) = first;
        *reinterpret_cast<LooseLanes*>(out + j + LANES) = second;
    }
    for (; j < count; ++j) {
        double total = constant;
        for (int kind = 0; kind < 2; ++kind)
            for (int64_t di = top; di <= bottom; ++di) {
                const double *row = map[kind] + di * width + j, *weight = kernel[kind] + di * side;
                for (int64_t dj = left; dj <= right; ++dj) total += weight[dj] * row[dj];
            }
        out[j] = total;
    }
}

// One class of one sample: its two maps, centered, in float64.
struct Pair {
    const Regions& r;
    const int64_t R, d, rows, columns;  // the last two: of positions that regions have
    double* map[2];                     // probabilities, labels
    bool absent;                        // the class is not in the sample

    Pair(const Regions& r, int64_t index, Scratch& scratch)
        : r(r), R(r.region_size), d(R * R), rows(r.height - R + 1), columns(r.width - R + 1) {
        const int64_t pixels = r.height * r.width;
        const void* const sources[2] = {r.probabilities, r.labels};
        for (int kind = 0; kind < 2; ++kind) {
            map[kind] = scratch.take<double>(pixels);
            const bool nonzero = r.is_double
                                     ? widen(static_cast<const double*>(sources[kind]) + index * pixels, pixels, map[kind])
                                     : widen(static_cast<const float*>(sources[kind]) + index * pixels, pixels, map[kind]);
            absent = !nonzero;  // of the labels, which come last
            subtract(sum(map[kind], pixels) / double(pixels), pixels, map[kind]);
        }
    }

    bool finite() const { return std::isfinite(map[0][0]); }  // the mean has been subtracted

    // The offsets of rows that row i of the map has in its regions.
    int64_t first_offset(int64_t i, int64_t positions) const { return std::max<int64_t>(0, i - positions + 1); }
    int64_t last_offset(int64_t i) const { return std::min(i, R - 1); }

    // Sums over `columns` consecutive values from each of the starts first .. last: what all have in common, `core`
    // (from `last` to first + columns), and the ends.
    template <class Value>
    INLINE void window_sums(int64_t first, int64_t last, double core, Value value, double* sums) const {
        const bool common = first + columns > last;
        for (int64_t b = first; b <= last; ++b) {
            double total = common ? core : 0;
            for (int64_t j = b; j < (common ? last : b + columns); ++j) total += value(j);
            for (int64_t j = first + columns; common && j < b + columns; ++j) total += value(j);
            sums[b] = total;
        }
    }

    // Sums over all positions of the value at each offset of the regions: (2, R, R).
    void region_sums(double* row_sums, double* sums) const {
        std::fill(sums, sums + 2 * d, 0.0);
        for (int kind = 0; kind < 2; ++kind)
            for (int64_t i = 0; i < r.height; ++i) {
                const double* row = map[kind] + i * r.width;
                window_sums(0, R - 1, sum(row + R - 1, columns - R + 1), [&](int64_t j) { return row[j]; }, row_sums);
                for (int64_t a = first_offset(i, rows); a <= last_offset(i); ++a)
                    for (int64_t b = 0; b < R; ++b) sums[kind * d + a * R + b] += row_sums[b];
            }
    }
};

// With A, B in {p, y}, the entry of G for A at offset (a, b) and B at (a + di, b + dj) is the sum of
// A[i, j] B[i + di, j + dj] over a rectangle of positions that begins at (a, b). For one lag (di, dj) these rectangles
// are nearly the same: the sum over what they have in common is taken once.
void covariance(const Regions& r, int64_t index, Scratch& scratch) {
    const int64_t R = r.region_size, d = R * R;
    scratch.reserve((2 * r.height * r.width + 2 * d + 2 * R) * sizeof(double), 5);
    const Pair pair(r, index, scratch);
    double *const totals = scratch.take<double>(2 * d), *const sums = scratch.take<double>(R);
    double* const shared = scratch.take<double>(R);
    double* const G = r.covariance + index * 4 * d * d;
    std::fill(G, G + 4 * d * d, 0.0);
    if (pair.absent) {
        // Nothing to explain: RMI is at its floor, whatever the covariance of p is, and has no gradient.
        if (!pair.finite()) G[0] = std::numeric_limits<double>::quiet_NaN();
        return;
    }
    pair.region_sums(sums, totals);
    for (int A = 0; A < 2; ++A)
        for (int B = 0; B < 2; ++B)
            for (int64_t di = 0; di < R; ++di) {
                if (di == 0 && A > B) continue;  // G is symmetric
                for (int64_t dj = di == 0 && A == B ? 0 : 1 - R; dj < R; ++dj) {
                    const int64_t first = std::max<int64_t>(0, -dj), last = std::min(R - 1, R - 1 - dj);
                    std::fill(shared, shared + R, 0.0);
                    for (int64_t i = 0; i + di < r.height; ++i) {
                        const int64_t low = pair.first_offset(i, pair.rows), high = std::min(i, R - 1 - di);
                        const double *s = pair.map[A] + i * r.width, *t = pair.map[B] + (i + di) * r.width + dj;
                        if (low > high) continue;
                        const double core = dot(s + last, t + last, first + pair.columns - last);
                        pair.window_sums(first, last, core, [&](int64_t j) { return s[j] * t[j]; }, sums);
                        if (low == 0 && high == R - 1 - di) {
                            for (int64_t b = first; b <= last; ++b) shared[b] += sums[b];
                        } else {
                            for (int64_t a = low; a <= high; ++a)
                                for (int64_t b = first; b <= last; ++b)
                                    G[(A * d + a * R + b) * 2 * d + B * d + (a + di) * R + b + dj] += sums[b];
                        }
                    }
                    for (int64_t a = 0; a + di < R; ++a)
                        for (int64_t b = first; b <= last; ++b) {
                            const int64_t row = A * d + a * R + b, column = B * d + (a + di) * R + b + dj;
                            const double value = G[row * 2 * d + column] + shared[b] -
                                                 totals[row] * totals[column] / double(pair.rows * pair.columns);
                            G[row * 2 * d + column] = G[column * 2 * d + row] = value;
                        }
                }
            }
}

// At each region the gradient in p is K (z - mean), z = [p; y], and a pixel's is the sum over the regions that it is in.
// For a pixel that is in d regions this is a convolution with (2R - 1)^2 weights for p and as many for y; near the
// borders, where it is in fewer, with fewer terms in the weights.
template <class T>
void region_gradient(const Regions& r, int64_t index, Scratch& scratch) {
    const int64_t R = r.region_size, d = R * R, side = 2 * R - 1, pixels = r.height * r.width;
    T* const gradient = static_cast<T*>(r.probabilities) + index * pixels;
    scratch.reserve((2 * pixels + 3 * d + 2 * side * side + std::max(r.width, R)) * sizeof(double), 6);
    const Pair pair(r, index, scratch);
    if (pair.absent && pair.finite()) {
        std::fill(gradient, gradient + pixels, T(0));
        return;
    }
    double *const means = scratch.take<double>(2 * d), *const constants = scratch.take<double>(d);
    double *const weights = scratch.take<double>(2 * side * side), *const out = scratch.take<double>(std::max(r.width, R));
    double* const kernel[2] = {weights + (R - 1) * (side + 1), weights + (R - 1) * (side + 1) + side * side};
    const double* const K = r.weights + index * 2 * d * d;
    pair.region_sums(out, means);
    for (int64_t k = 0; k < 2 * d; ++k) means[k] /= double(pair.rows * pair.columns);
    for (int64_t o = 0; o < d; ++o) {
        constants[o] = 0;
        for (int64_t k = 0; k < 2 * d; ++k) constants[o] -= K[o * 2 * d + k] * means[k];
    }

    // Columns with the same offsets together, and rows with the same offsets share their weights.
    for (int64_t j = 0, count; j < r.width; j += count) {
        const int64_t b0 = pair.first_offset(j, pair.columns), b1 = pair.last_offset(j);
        count = b0 == 0 && b1 == R - 1 ? pair.columns - j : 1;
        int64_t a0 = -1, a1 = -1;
        double constant = 0;
        for (int64_t i = 0; i < r.height; ++i) {
            if (pair.first_offset(i, pair.rows) != a0 || pair.last_offset(i) != a1) {
                a0 = pair.first_offset(i, pair.rows);
                a1 = pair.last_offset(i);
                constant = 0;
                std::fill(weights, weights + 2 * side * side, 0.0);
                for (int64_t a = a0; a <= a1; ++a)
                    for (int64_t b = b0; b <= b1; ++b) {
                        constant += constants[a * R + b];
                        const double* from = K + (a * R + b) * 2 * d;
                        for (int kind = 0; kind < 2; ++kind)
                            for (int64_t a2 = 0; a2 < R; ++a2)
                                for (int64_t b2 = 0; b2 < R; ++b2)
                                    kernel[kind][(a2 - a) * side + b2 - b] += from[(kind * R + a2) * R + b2];
                    }
            }
            const double* const at[2] = {pair.map[0] + i * r.width + j, pair.map[1] + i * r.width + j};
            convolve(at, r.width, kernel, side, -a1, R - 1 - a0, -b1, R - 1 - b0, constant, count, out);
            for (int64_t k = 0; k < count; ++k) gradient[i * r.width + j + k] = T(out[k]);
        }
    }
}

}  // namespace

extern "C" {

void rmiseg_covariance(const Regions* r) {
    for_each_task(r->maps, r->threads, [&](int64_t map, Scratch& scratch) { covariance(*r, map, scratch); });
}

void rmiseg_region_gradient(const Regions* r) {
    for_each_task(r->maps, r->threads, [&](int64_t map, Scratch& scratch) {
        r->is_double ? region_gradient<double>(*r, map, scratch) : region_gradient<float>(*r, map, scratch);
    });
}
}
