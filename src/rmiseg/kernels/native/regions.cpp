// RMI of pooled maps, and its gradient. For the formulas see rmiseg/kernels/regions.py.
//
// Products of maps at every lag, instead of products of regions: (2R - 1)^2 of them instead of R^4.

#include <cmath>
#include <limits>

#include "common.h"
#include "interface.h"
#include "matrices.h"

namespace {

LEAF double sum(const double* a, int64_t count) {
    Lanes sums[4] = {};
    int64_t i = 0;
    for (; i + 4 * LANES <= count; i += 4 * LANES)
        for (int64_t k = 0; k < 4; ++k) sums[k] += lanes(a + i + k * LANES);
    double result = total(sums[0] + sums[1] + sums[2] + sums[3]);
    for (; i < count; ++i) result += a[i];
    return result;
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

// A rectangle of numbers. Reading may go up to 2 LANES beyond its end, where there must be numbers too.
struct View {
    const double* data;
    int64_t rows, columns, stride;
};

// sums[k] += sum of a[i, j] b[i + di, j + dj + k], for `lags` values of k, at most MOST, over all i, j of a.
constexpr int64_t MOST = 9;
constexpr int64_t BLOCK_VALUES = 1 << 11;  // what is read again lies in the first-level cache
template <int64_t COUNT>
INLINE void add_lags(View a, const double* b, int64_t b_stride, double* sums) {
    Lanes partial[COUNT] = {};
    Lanes inside = {};  // 1 in columns of a, 0 beyond them
    const int64_t rest = a.columns % LANES, whole = a.columns - rest;
    for (int64_t lane = 0; lane < LANES; ++lane) inside[lane] = lane < rest;
    for (int64_t i = 0; i < a.rows; ++i) {
        const double *row = a.data + i * a.stride, *other = b + i * b_stride;
        for (int64_t j = 0; j < whole; j += LANES)
            for (int64_t k = 0; k < COUNT; ++k) partial[k] += lanes(row + j) * lanes(other + j + k);
        if (rest)
            for (int64_t k = 0; k < COUNT; ++k) partial[k] += inside * lanes(row + whole) * lanes(other + whole + k);
    }
    for (int64_t k = 0; k < COUNT; ++k) sums[k] += total(partial[k]);
}
LEAF void products_at_lags(View a, const double* b, int64_t b_stride, int64_t lags, double* sums) {
    for (; lags > MOST; lags -= MOST, b += MOST, sums += MOST) add_lags<MOST>(a, b, b_stride, sums);
    switch (lags) {  // as constants, so that the sums stay in registers
        case 9: return add_lags<9>(a, b, b_stride, sums);
        case 8: return add_lags<8>(a, b, b_stride, sums);
        case 7: return add_lags<7>(a, b, b_stride, sums);
        case 6: return add_lags<6>(a, b, b_stride, sums);
        case 5: return add_lags<5>(a, b, b_stride, sums);
        case 4: return add_lags<4>(a, b, b_stride, sums);
        case 3: return add_lags<3>(a, b, b_stride, sums);
        case 2: return add_lags<2>(a, b, b_stride, sums);
        case 1: return add_lags<1>(a, b, b_stride, sums);
    }
}

// out[j] = constant + sum of kernel[kind][di][dj] map[kind][di][j + dj], for `count` columns j; `stride` is that of the
// map, `side` that of the kernel, and both begin at lag 0. The lags go from `top` to `bottom` and `left` to `right`.
struct Convolution {
    const double *map[2], *kernel[2];
    int64_t stride, side, top, bottom, left, right;
    double constant;
};
template <int64_t COUNT>
INLINE void convolve_lanes(const Convolution& c, int64_t j, double* out) {
    Lanes sums[COUNT] = {};
    for (Lanes& sum : sums) sum += c.constant;
    for (int kind = 0; kind < 2; ++kind)
        for (int64_t di = c.top; di <= c.bottom; ++di) {
            const double *row = c.map[kind] + di * c.stride + j, *weight = c.kernel[kind] + di * c.side;
            for (int64_t dj = c.left; dj <= c.right; ++dj)
                for (int64_t k = 0; k < COUNT; ++k) sums[k] += weight[dj] * lanes(row + dj + k * LANES);
        }
    for (int64_t k = 0; k < COUNT; ++k) store(sums[k], out + j + k * LANES);
}
LEAF void convolve(const Convolution& c, int64_t count, double* out) {
    // Blocks of the largest kind that fits; the last one overlaps the one before it.
    const int64_t block = (count >= 8 * LANES ? 8 : count >= 2 * LANES ? 2 : 1) * LANES;
    if (count >= LANES) {
        for (int64_t begin = 0; begin < count; begin += block) {
            const int64_t j = std::min(begin, count - block);
            if (block == 8 * LANES)
                convolve_lanes<8>(c, j, out);
            else if (block == 2 * LANES)
                convolve_lanes<2>(c, j, out);
            else
                convolve_lanes<1>(c, j, out);
        }
        return;
    }
    for (int64_t j = 0; j < count; ++j) {
        out[j] = c.constant;
        for (int kind = 0; kind < 2; ++kind)
            for (int64_t di = c.top; di <= c.bottom; ++di)
                for (int64_t dj = c.left; dj <= c.right; ++dj)
                    out[j] += c.kernel[kind][di * c.side + dj] * c.map[kind][di * c.stride + j + dj];
    }
}

// How one side of a map is cut: lines near the ends, which are not at all offsets of regions, are edges, each for itself;
// the `inner` lines between them begin at R - 1. At offset a regions have `single` edges, from number a on.
struct Cut {
    int64_t side, R, positions, inner, edges, single;

    Cut(int64_t side, int64_t R)
        : side(side),
          R(R),
          positions(side - R + 1),
          inner(std::max<int64_t>(0, side - 2 * (R - 1))),
          edges(side - inner),
          single(positions - inner) {}

    int64_t line(int64_t edge) const { return edge < R - 1 ? edge : edge + inner; }
    // The offsets that a line has in its regions.
    int64_t first_offset(int64_t line) const { return std::max<int64_t>(0, line - positions + 1); }
    int64_t last_offset(int64_t line) const { return std::min(line, R - 1); }
};

// Sums over the classes that each offset has, of rows of `count` numbers: from (edges + 1, count), whose last row is what is
// inside, to (offsets, count).
LEAF void sum_classes(const double* from, const Cut& cut, int64_t offsets, int64_t count, double* __restrict out) {
    for (int64_t offset = 0; offset < offsets; ++offset, out += count) {
        std::copy_n(from + cut.edges * count, count, out);
        for (int64_t edge = offset; edge < offset + cut.single; ++edge)
            for (int64_t k = 0; k < count; ++k) out[k] += from[edge * count + k];
    }
}

// One class of one sample: its two maps, centered, in float64, and the columns near their ends as rows.
struct Pair {
    const Regions& r;
    const int64_t R, d;
    const Cut rows, columns;
    double* map[2];      // probabilities, labels
    double* turned[2];   // (2, near, height): columns 0 to near - 1, and the last `near` columns
    const int64_t near;
    bool absent;         // the class is not in the sample

    // What may be read beyond the ends of the arrays.
    static constexpr int64_t PAD = 4 * LANES;

    Pair(const Regions& r, int64_t index, Scratch& scratch)
        : r(r), R(r.region_size), d(R * R), rows(r.height, R), columns(r.width, R), near(std::min(r.width, 2 * (R - 1))) {
        const int64_t pixels = r.height * r.width;
        const void* const sources[2] = {r.probabilities, r.labels};
        for (int kind = 0; kind < 2; ++kind) {
            map[kind] = scratch.take<double>(pixels + PAD);
            const bool nonzero = r.is_double
                                     ? widen(static_cast<const double*>(sources[kind]) + index * pixels, pixels, map[kind])
                                     : widen(static_cast<const float*>(sources[kind]) + index * pixels, pixels, map[kind]);
            absent = !nonzero;  // of the labels, which come last
            subtract(sum(map[kind], pixels) / double(pixels), pixels, map[kind]);
            std::fill(map[kind] + pixels, map[kind] + pixels + PAD, 0.0);
            turned[kind] = scratch.take<double>(2 * near * r.height + PAD);
            double* out = turned[kind];
            for (int64_t first : {int64_t(0), r.width - near})
                for (int64_t j = first; j < first + near; ++j)
                    for (int64_t i = 0; i < r.height; ++i) *out++ = map[kind][i * r.width + j];
            std::fill(out, out + PAD, 0.0);
        }
    }

    bool finite() const { return std::isfinite(map[0][0]); }  // the mean has been subtracted

    // Column j, near the same end as edge number q, as a row.
    const double* column(int kind, int64_t q, int64_t j) const {
        return turned[kind] + (q < R - 1 ? j : near + j - (r.width - near)) * r.height;
    }

    // Sums over all positions of the value at each offset of the regions: (2, R, R).
    void region_sums(double* sums) const {
        std::fill(sums, sums + 2 * d, 0.0);
        for (int kind = 0; kind < 2; ++kind)
            for (int64_t i = 0; i < r.height; ++i) {
                const double* row = map[kind] + i * r.width;
                double value = sum(row, columns.positions);
                for (int64_t b = 0; b < R; ++b) {
                    for (int64_t a = rows.first_offset(i); a <= rows.last_offset(i); ++a) sums[kind * d + a * R + b] += value;
                    value += row[std::min(b + columns.positions, r.width - 1)] - row[b];  // of no meaning after the last
                }
            }
    }
};

// With A, B in {p, y}, the entry of G for A at offset (a, b) and B at (a + di, b + dj) is the sum of
// A[i, j] B[i + di, j + dj] over a rectangle of positions that begins at (a, b). For one lag (di, dj) these rectangles
// have nearly everything in common: the sum over that is taken once, and those over edges are taken apart.
//
// G is (2d, stride), out.
void covariance(const Pair& pair, double* G, int64_t stride, Scratch& scratch) {
    const Cut &rows = pair.rows, &columns = pair.columns;
    const int64_t R = pair.R, d = pair.d, side = 2 * R - 1, height = rows.side, width = columns.side;
    const int64_t row_classes = rows.edges + 1, column_classes = columns.edges + 1;
    const int64_t edge_count = columns.edges * side * R, sum_count = row_classes * column_classes * side;
    double *const totals = scratch.take<double>(2 * d), *const edges = scratch.take<double>(edge_count);
    double* const sums = scratch.take<double>(sum_count);
    double *const by_column = scratch.take<double>(row_classes * R * side), *const by_offset = scratch.take<double>(d * side);
    pair.region_sums(totals);
    // Inner rows and columns, (A, B, di, dj), a few rows at a time: they are read again for every lag.
    double* const inner = scratch.take<double>(4 * R * side);
    std::fill(inner, inner + 4 * R * side, 0.0);
    const int64_t block = std::max<int64_t>(1, BLOCK_VALUES / width);
    for (int64_t i = R - 1; i < R - 1 + rows.inner; i += block)
        for (int64_t k = 0; k < 4 * R; ++k) {
            const int64_t A = k / R / 2, B = k / R % 2, di = k % R, count = std::min(block, R - 1 + rows.inner - i);
            if (di == 0 && A > B) continue;  // G is symmetric
            products_at_lags({pair.map[A] + i * width + R - 1, count, columns.inner, width},
                             pair.map[B] + (i + di) * width, width, side, inner + k * side);
        }
    for (int A = 0; A < 2; ++A)
        for (int B = 0; B < 2; ++B) {
            // Inner rows, edges of columns: (edge, dj, di).
            std::fill(edges, edges + edge_count, 0.0);
            for (int64_t q = 0; q < columns.edges; ++q)
                for (int64_t dj = 1 - R; dj < R; ++dj) {
                    const int64_t j = columns.line(q);
                    if (j + dj < 0 || j + dj >= width) continue;
                    const View column = {pair.column(A, q, j) + R - 1, 1, rows.inner, height};
                    double* const out = edges + (q * side + dj + R - 1) * R;
                    products_at_lags(column, pair.column(B, q, j + dj) + R - 1, height, R, out);
                }
            for (int64_t di = 0; di < R; ++di) {
                if (di == 0 && A > B) continue;  // G is symmetric
                // Sums of products, (row class, column class, dj): edges one by one, and last what is inside.
                std::fill(sums, sums + sum_count, 0.0);
                for (int64_t p = 0; p < row_classes; ++p) {
                    const int64_t i = p < rows.edges ? rows.line(p) : R - 1;
                    if (i + di >= height) continue;
                    const double *const s = pair.map[A] + i * width, *const t = pair.map[B] + (i + di) * width;
                    double* const out = sums + p * column_classes * side;
                    if (p < rows.edges)
                        products_at_lags({s + R - 1, 1, columns.inner, width}, t, width, side, out + columns.edges * side);
                    else
                        std::copy_n(inner + ((A * 2 + B) * R + di) * side, side, out + columns.edges * side);
                    for (int64_t q = 0; q < columns.edges; ++q) {
                        const int64_t j = columns.line(q);
                        for (int64_t k = std::max<int64_t>(0, R - 1 - j); k < std::min(side, width - j + R - 1); ++k)
                            out[q * side + k] = p < rows.edges ? s[j] * t[j + k - R + 1] : edges[(q * side + k) * R + di];
                    }
                }
                // Sums over the rectangles, (a, b, dj): first over columns, (row class, b, dj).
                for (int64_t p = 0; p < row_classes; ++p)
                    sum_classes(sums + p * column_classes * side, columns, R, side, by_column + p * R * side);
                sum_classes(by_column, rows, R - di, R * side, by_offset);
                for (int64_t dj = di == 0 && A == B ? 0 : 1 - R; dj < R; ++dj)
                    for (int64_t a = 0; a + di < R; ++a)
                        for (int64_t b = std::max<int64_t>(0, -dj); b <= std::min(R - 1, R - 1 - dj); ++b) {
                            const int64_t row = A * d + a * R + b, column = B * d + (a + di) * R + b + dj;
                            const double means = totals[row] * totals[column] / double(rows.positions * columns.positions);
                            const double value = by_offset[(a * R + b) * side + dj + R - 1] - means;
                            G[row * stride + column] = G[column * stride + row] = value;
                        }
            }
        }
}

// At each region the gradient in p is K (z - mean), z = [p; y], and a pixel's is the sum over the regions that it is in.
// For a pixel that is in d regions this is a convolution with (2R - 1)^2 weights for p and as many for y; near the
// borders, where it is in fewer, with fewer terms in the weights.
//
// K is (d, stride); gradient (height, width), out.
template <class T>
void region_gradient(const Pair& pair, const double* K, int64_t stride, T* gradient, Scratch& scratch) {
    const int64_t R = pair.R, d = pair.d, side = 2 * R - 1, height = pair.rows.side, width = pair.columns.side;
    double *const means = scratch.take<double>(2 * d), *const constants = scratch.take<double>(d);
    double* const weights = scratch.take<double>(2 * side * side);
    double* const out = scratch.take<double>(std::max(width, height));
    pair.region_sums(means);
    for (int64_t k = 0; k < 2 * d; ++k) means[k] /= double(pair.rows.positions * pair.columns.positions);
    for (int64_t o = 0; o < d; ++o) {
        constants[o] = 0;
        for (int64_t k = 0; k < 2 * d; ++k) constants[o] -= K[o * stride + k] * means[k];
    }

    // The convolution for pixels at offsets a0 to a1, b0 to b1; by columns, if `turn`. From line to line of pixels, weights
    // of offsets that come are added, and of those that go are subtracted.
    Convolution c;
    int64_t first, last, b0, b1;
    bool turn;
    double* const center[2] = {weights + (R - 1) * (side + 1), weights + (R - 1) * (side + 1) + side * side};
    const auto begin = [&](int64_t from, int64_t to, bool by_columns) {
        first = 0, last = -1, b0 = from, b1 = to, turn = by_columns;
        c = {{}, {center[0], center[1]}, turn ? height : width, side, 0, 0, 0, 0, 0.0};
        std::fill(weights, weights + 2 * side * side, 0.0);
    };
    const auto add = [&](int64_t a, double sign) {
        for (int64_t b = b0; b <= b1; ++b) {
            c.constant += sign * constants[a * R + b];
            const double* from = K + (a * R + b) * stride;
            for (int kind = 0; kind < 2; ++kind)
                for (int64_t di = -a; di < R - a; ++di)
                    for (int64_t dj = -b; dj < R - b; ++dj)
                        center[kind][turn ? dj * side + di : di * side + dj] += sign * *from++;
        }
    };
    const auto slide = [&](int64_t a0, int64_t a1) {
        while (last < a1) add(++last, 1);
        while (first < a0) add(first++, -1);
        c.top = -a1, c.bottom = R - 1 - a0, c.left = -b1, c.right = R - 1 - b0;
        if (turn) {
            std::swap(c.top, c.left);
            std::swap(c.bottom, c.right);
        }
    };

    // Inner columns row by row.
    begin(0, R - 1, false);
    for (int64_t i = 0; pair.columns.inner > 0 && i < height; ++i) {
        slide(pair.rows.first_offset(i), pair.rows.last_offset(i));
        for (int kind = 0; kind < 2; ++kind) c.map[kind] = pair.map[kind] + i * width + R - 1;
        convolve(c, pair.columns.inner, out);
        for (int64_t j = 0; j < pair.columns.inner; ++j) gradient[i * width + R - 1 + j] = T(out[j]);
    }
    // Columns at the edges, each as a row, in stretches with the same offsets.
    for (int64_t q = 0; q < pair.columns.edges; ++q) {
        const int64_t j = pair.columns.line(q);
        begin(pair.columns.first_offset(j), pair.columns.last_offset(j), true);
        for (int64_t i = 0, count; i < height; i += count) {
            count = i == R - 1 && pair.rows.inner > 0 ? pair.rows.inner : 1;
            slide(pair.rows.first_offset(i), pair.rows.last_offset(i));
            for (int kind = 0; kind < 2; ++kind) c.map[kind] = pair.column(kind, q, j) + i;
            convolve(c, count, out);
            for (int64_t k = 0; k < count; ++k) gradient[(i + k) * width + j] = T(out[k]);
        }
    }
}

// The weights K (d, stride) of the gradient, from the Cholesky factor U (2d, stride) of G + aI. With U = [[A, B], [0, C]],
// the last d columns of its inverse are [X; Y] = [-A^-1 B C^-1; C^-1], and K = X [X; Y]^T / d.
double* gradient_weights(const double* U, int64_t d, int64_t stride, Scratch& scratch) {
    const int64_t columns = padded(d);
    double *const inverse = scratch.take<double>(2 * d * columns), *const turned = scratch.take<double>(d * stride);
    double* const K = scratch.take<double>(d * stride);
    std::fill(inverse, inverse + 2 * d * columns, 0.0);
    for (int64_t i = 0; i < d; ++i) inverse[(d + i) * columns + i] = 1;
    solve_upper(U, 2 * d, stride, inverse, columns);
    std::fill(turned, turned + d * stride, 0.0);
    for (int64_t i = 0; i < 2 * d; ++i)
        for (int64_t j = 0; j < d; ++j) turned[j * stride + i] = inverse[i * columns + j];
    std::fill(K, K + d * stride, 0.0);
    subtract_product({inverse, columns, 1}, turned, stride, d, stride, d, K, stride);
    for (int64_t i = 0; i < d; ++i) scale_row(-1.0 / d, stride, K + i * stride);
    return K;
}

// RMI of probabilities that are the labels, of which G (2d, stride) has the covariance in its last rows and columns.
double perfect_rmi(const double* G, int64_t d, int64_t stride, double alpha, Scratch& scratch) {
    const int64_t columns = padded(d);
    double* const matrix = scratch.take<double>(d * columns);
    double value = 0.5 * std::log(alpha);
    for (double times : {2.0, 1.0}) {
        for (int64_t i = 0; i < d; ++i) {
            for (int64_t j = 0; j < d; ++j) matrix[i * columns + j] = times * G[(d + i) * stride + d + j];
            matrix[i * columns + i] += alpha;
        }
        factorize(matrix, d, columns);
        value += (times == 2 ? 1 : -1) * log_diagonal(matrix, 0, d, columns) / d;
    }
    return value;
}

template <class T>
void regions(const Regions& r, int64_t index, Scratch& scratch) {
    const Pair pair(r, index, scratch);
    const int64_t d = pair.d, stride = padded(2 * d), pixels = r.height * r.width;
    T* const gradient = static_cast<T*>(r.probabilities) + index * pixels;
    r.present[index] = !pair.absent;
    if (pair.absent) {
        // Nothing to explain: RMI is at its floor, whatever the covariance of p is, and has no gradient.
        const double nothing = pair.finite() ? 0 : std::numeric_limits<double>::quiet_NaN();
        r.rmi[index] = 0.5 * std::log(r.alpha) + nothing;
        if (r.perfect) r.perfect[index] = 0.5 * std::log(r.alpha);
        if (r.with_gradient) std::fill(gradient, gradient + pixels, T(nothing));
        return;
    }
    double* const G = scratch.take<double>(2 * d * stride);
    std::fill(G, G + 2 * d * stride, 0.0);
    covariance(pair, G, stride, scratch);
    if (r.perfect) r.perfect[index] = perfect_rmi(G, d, stride, r.alpha, scratch);
    for (int64_t i = 0; i < 2 * d; ++i) G[i * stride + i] += r.alpha;
    factorize(G, 2 * d, stride);
    r.rmi[index] = log_diagonal(G, d, 2 * d, stride) / d;
    if (r.with_gradient) region_gradient(pair, gradient_weights(G, d, stride, scratch), stride, gradient, scratch);
}

}  // namespace

extern "C" {

int64_t rmiseg_regions_size() { return sizeof(Regions); }

void rmiseg_regions(const Regions* r) {
    for_each_task(r->maps, r->threads, [&](int64_t map, Scratch& scratch) {
        r->is_double ? regions<double>(*r, map, scratch) : regions<float>(*r, map, scratch);
    });
}
}
