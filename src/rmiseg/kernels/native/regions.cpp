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

LEAF void scaled(double scale, int64_t count, const double* row, double* __restrict out) {
    for (int64_t i = 0; i < count; ++i) out[i] = scale * row[i];
}

// A rectangle of numbers. Reading may go up to 2 LANES beyond its end, where there must be numbers too.
struct View {
    const double* data;
    int64_t rows, columns, stride;
};

// sums[k] += sum of a[i, j] b[i, j + k], for `lags` values of k, over all i, j of a.
constexpr int64_t BLOCK_VALUES = 1 << 11;  // what is read again lies in the first-level cache
template <int64_t COUNT>
INLINE void add_lags(View a, const double* b, int64_t b_stride, int64_t lags, double* sums) {
    if constexpr (COUNT > 1)
        if (lags < COUNT) return add_lags<COUNT - 1>(a, b, b_stride, lags, sums);
    Lanes partial[LANES] = {};
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
    const Lanes found = totals(partial);
    for (int64_t k = 0; k < COUNT; ++k) sums[k] += found[k];
}
LEAF void products_at_lags(View a, const double* b, int64_t b_stride, int64_t lags, double* sums) {
    for (int64_t parts = (lags + LANES - 1) / LANES, count; parts > 0; --parts, lags -= count, b += count, sums += count) {
        count = (lags + parts - 1) / parts;
        add_lags<LANES>(a, b, b_stride, count, sums);  // as constants, so that the sums stay in registers
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
template <int64_t COUNT>
INLINE void convolve_rest(const Convolution& c, int64_t vectors, int64_t j, double* out) {
    if constexpr (COUNT > 0) {
        if (vectors < COUNT) return convolve_rest<COUNT - 1>(c, vectors, j, out);
        convolve_lanes<COUNT>(c, j, out);
    }
}
// The map is read, and `out` written, up to a multiple of LANES.
LEAF void convolve(const Convolution& c, int64_t count, double* out) {
    int64_t j = 0;
    for (; count - j >= 8 * LANES; j += 8 * LANES) convolve_lanes<8>(c, j, out);
    convolve_rest<7>(c, (count - j + LANES - 1) / LANES, j, out);
}
// `convolve` for one column; lanes are lags.
LEAF double convolve_at(const Convolution& c) {
    Lanes sums = {};
    for (int64_t dj = c.left; dj <= c.right; dj += LANES) {
        Lanes inside = {};
        for (int64_t lane = 0; lane < LANES; ++lane) inside[lane] = dj + lane <= c.right;
        for (int kind = 0; kind < 2; ++kind)
            for (int64_t di = c.top; di <= c.bottom; ++di)
                sums += inside * lanes(c.kernel[kind] + di * c.side + dj) * lanes(c.map[kind] + di * c.stride + dj);
    }
    return c.constant + total(sums);
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
    // The number of an edge; all that is inside has the last.
    int64_t edge(int64_t line) const { return line < R - 1 || inner == 0 ? line : line < R - 1 + inner ? edges : line - inner; }
    // The offsets that a line has in its regions.
    int64_t first_offset(int64_t line) const { return std::max<int64_t>(0, line - positions + 1); }
    int64_t last_offset(int64_t line) const { return std::min(line, R - 1); }
};

// to += sign * from, of blocks of numbers (rows, columns).
LEAF void add_block(double sign, int64_t rows, int64_t columns, const double* from, int64_t from_stride, double* __restrict to,
                    int64_t to_stride) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j) to[i * to_stride + j] += sign * from[i * from_stride + j];
}

// Sums over the lines that each offset has, of rows of `count` numbers, a multiple of LANES: from (edges + 1, count), whose last
// row is what is inside, to (offsets, count). From offset to offset one edge comes and one goes.
LEAF void sum_lines(const double* from, const Cut& cut, int64_t offsets, int64_t count, double* out) {
    for (int64_t j = 0; j < count; j += LANES) {
        Lanes sum = lanes(from + cut.edges * count + j);
        for (int64_t edge = 0; edge < cut.single; ++edge) sum += lanes(from + edge * count + j);
        store(sum, out + j);
        for (int64_t offset = 1; offset < offsets; ++offset) {
            const double* const gone = from + (offset - 1) * count + j;
            sum += lanes(gone + cut.single * count) - lanes(gone);
            store(sum, out + offset * count + j);
        }
    }
}

// One class of one sample: its two maps, centered, in float64, and the columns near their ends as rows.
struct Pair {
    const Regions& r;
    const int64_t R, d;
    const Cut rows, columns;
    double* map[2];      // probabilities, labels
    double* turned[2];   // (2, near, height): columns 0 to near - 1, and the last `near` columns
    double* sums;        // (2, R, R): over all positions, of the value at each offset of the regions
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
        sum_regions(scratch);
    }

    bool finite() const { return std::isfinite(map[0][0]); }  // the mean has been subtracted

    // Column j, near the same end as edge number q, as a row.
    const double* column(int kind, int64_t q, int64_t j) const {
        return turned[kind] + (q < R - 1 ? j : near + j - (r.width - near)) * r.height;
    }

    void sum_regions(Scratch& scratch) {
        const int64_t stride = padded(R), count = (rows.edges + 1) * stride;
        double* const by_row = scratch.take<double>(count);  // (row, offset), edges and what is inside
        double* const by_offset = scratch.take<double>(R * stride);
        sums = scratch.take<double>(2 * d);
        for (int kind = 0; kind < 2; ++kind) {
            std::fill(by_row, by_row + count, 0.0);
            for (int64_t i = 0; i < r.height; ++i) {
                const double* row = map[kind] + i * r.width;
                double* const out = by_row + rows.edge(i) * stride;
                double value = sum(row, columns.positions);
                for (int64_t b = 0; b < R; ++b) {
                    out[b] += value;
                    value += row[std::min(b + columns.positions, r.width - 1)] - row[b];  // of no meaning after the last
                }
            }
            sum_lines(by_row, rows, R, stride, by_offset);
            for (int64_t a = 0; a < R; ++a) std::copy_n(by_offset + a * stride, R, sums + kind * d + a * R);
        }
    }
};

// With A, B in {p, y}, the entry of G for A at offset (a, b) and B at (a + di, b + dj) is the sum of
// A[i, j] B[i + di, j + dj] over a rectangle of positions that begins at (a, b). For one lag (di, dj) these rectangles
// have nearly everything in common: the sum over that is taken once, and those over edges are taken apart.
//
// G is (2d, stride), out: its upper triangle.
void covariance(const Pair& pair, double* G, int64_t stride, Scratch& scratch) {
    const Cut &rows = pair.rows, &columns = pair.columns;
    const int64_t R = pair.R, d = pair.d, side = 2 * R - 1, height = rows.side, width = columns.side;
    const int64_t row_classes = rows.edges + 1, column_classes = columns.edges + 1;
    const int64_t lags = padded(side), edge_count = columns.edges * side * R, sum_count = row_classes * column_classes * lags;
    double *const edges = scratch.take<double>(edge_count), *const sums = scratch.take<double>(sum_count);
    double *const by_column = scratch.take<double>(row_classes * R * lags), *const by_offset = scratch.take<double>(d * lags);
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
                    double *const out = sums + p * column_classes * lags, *const all = out + columns.edges * lags;
                    if (p == rows.edges) {
                        std::copy_n(inner + ((A * 2 + B) * R + di) * side, side, all);
                        for (int64_t q = 0; q < columns.edges; ++q)
                            for (int64_t k = 0; k < side; ++k) out[q * lags + k] = edges[(q * side + k) * R + di];
                        continue;
                    }
                    const int64_t i = rows.line(p);
                    if (i + di >= height) continue;
                    const double *const s = pair.map[A] + i * width, *const t = pair.map[B] + (i + di) * width;
                    products_at_lags({s + R - 1, 1, columns.inner, width}, t, width, side, all);
                    for (int64_t q = 0; q < columns.edges; ++q) {
                        const int64_t j = columns.line(q), first = std::max<int64_t>(0, R - 1 - j);
                        const int64_t last = std::min(side, width - j + R - 1);
                        scaled(s[j], last - first, t + j + first - R + 1, out + q * lags + first);
                    }
                }
                // Sums over the rectangles, (a, b, dj): first over columns, (row class, b, dj).
                for (int64_t p = 0; p < row_classes; ++p)
                    sum_lines(sums + p * column_classes * lags, columns, R, lags, by_column + p * R * lags);
                sum_lines(by_column, rows, R - di, R * lags, by_offset);
                for (int64_t o = 0; o < (R - di) * R; ++o) {
                    // Of the offsets b + dj, those in the upper triangle.
                    const int64_t b = o % R, from = di == 0 && A == B ? b : 0, first = (o / R + di) * R;
                    const double *const values = by_offset + o * lags + R - 1 - b, *const other = pair.sums + B * d + first;
                    const double mean = pair.sums[A * d + o] / double(rows.positions * columns.positions);
                    double* const to = A > B ? G + first * stride + A * d + o : G + (A * d + o) * stride + B * d + first;
                    const int64_t step = A > B ? stride : 1;
                    for (int64_t k = from; k < R; ++k) to[k * step] = values[k] - mean * other[k];
                }
            }
        }
}

// The weights and the constant of a convolution for pixels at some offsets of their regions. At each region the gradient in p is
// K (z - mean), z = [p; y], and a pixel's is the sum over the regions that it is in. So where a pixel is in d regions the
// weights are (2R - 1)^2 for p and as many for y; near the borders, where it is in fewer, fewer terms are in them. Offsets that
// come are added, and those that go are subtracted.
class Weights {
  public:
    // K is (d, 2d), constants (d,). Of turned regions, and turned maps, rows are columns.
    Weights(const double* K, const double* constants, int64_t R, Scratch& scratch)
        : K(K), constants(constants), R(R), side(2 * R - 1), bands(scratch.take<double>(R * 2 * side * R)),
          band_constants(scratch.take<double>(R)), weights(scratch.take<double>(2 * side * side + LANES)) {
        std::fill(bands, bands + R * 2 * side * R, 0.0);
        std::fill(band_constants, band_constants + R, 0.0);
        std::fill(weights, weights + 2 * side * side + LANES, 0.0);
    }

    void set_rows(int64_t from, int64_t to) {
        if (a0 == from && a1 == to) return;
        while (a1 < to) add_to_bands(++a1, 1);
        while (a0 < from) add_to_bands(a0++, -1);
        b0 = 0, b1 = -1, constant = 0;
        std::fill(weights, weights + 2 * side * side, 0.0);
    }

    // The offsets of columns, in rows that have been set.
    void set_columns(int64_t from, int64_t to) {
        while (b1 < to) add_band(++b1, 1);
        while (b0 < from) add_band(b0++, -1);
    }

    // The convolution of maps that begin at the first pixel.
    Convolution of(const double* p, const double* y, int64_t stride) const {
        const double* const center = weights + (R - 1) * (side + 1);
        return {{p, y}, {center, center + side * side}, stride, side, -a1, R - 1 - a0, -b1, R - 1 - b0, constant};
    }

  private:
    void add_to_bands(int64_t a, double sign) {
        for (int64_t b = 0; b < R; ++b) {
            band_constants[b] += sign * constants[a * R + b];
            for (int kind = 0; kind < 2; ++kind)
                add_block(sign, 1, R * R, K + ((a * R + b) * 2 + kind) * R * R, 0, band(b, kind) + (R - 1 - a) * R, 0);
        }
    }

    void add_band(int64_t b, double sign) {
        constant += sign * band_constants[b];
        for (int kind = 0; kind < 2; ++kind)
            add_block(sign, side, R, band(b, kind), R, weights + kind * side * side + R - 1 - b, side);
    }

    double* band(int64_t b, int kind) const { return bands + (b * 2 + kind) * side * R; }

    const double *const K, *const constants;
    const int64_t R, side;
    double* const bands;  // (R, 2, side, R): at offset b, of p and y, by the lag of rows, at each column of the regions
    double *const band_constants, *const weights;
    double constant = 0;
    int64_t a0 = 0, a1 = -1, b0 = 0, b1 = -1;
};

// K is (d, 2d); gradient (height, width), out.
template <class T>
void region_gradient(const Pair& pair, const double* K, T* gradient, Scratch& scratch) {
    const int64_t R = pair.R, d = pair.d, height = pair.rows.side, width = pair.columns.side;
    double *const constants = scratch.take<double>(d), *const turned_constants = scratch.take<double>(d);
    double *const turned = scratch.take<double>(2 * d * d), *const out = scratch.take<double>(padded(std::max(width, height)));
    for (int64_t o = 0; o < d; ++o) {
        const double* const row = K + o * 2 * d;
        const int64_t turned_o = o % R * R + o / R;
        double sum = 0;
        for (int64_t k = 0; k < 2 * d; ++k) sum += row[k] * pair.sums[k];
        constants[o] = turned_constants[turned_o] = -sum / double(pair.rows.positions * pair.columns.positions);
        for (int kind = 0; kind < 2; ++kind)
            for (int64_t a = 0; a < R; ++a)
                for (int64_t b = 0; b < R; ++b)
                    turned[(turned_o * 2 + kind) * d + b * R + a] = row[kind * d + a * R + b];
    }

    // Inner columns, row by row.
    Weights weights(K, constants, R, scratch);
    for (int64_t i = 0; pair.columns.inner > 0 && i < height; ++i) {
        weights.set_rows(pair.rows.first_offset(i), pair.rows.last_offset(i));
        weights.set_columns(0, R - 1);
        const int64_t at = i * width + R - 1;
        convolve(weights.of(pair.map[0] + at, pair.map[1] + at, width), pair.columns.inner, out);
        for (int64_t j = 0; j < pair.columns.inner; ++j) gradient[at + j] = T(out[j]);
    }
    // Columns at the edges, each as a row, in stretches with the same offsets.
    Weights turned_weights(turned, turned_constants, R, scratch);
    for (int64_t q = 0; q < pair.columns.edges; ++q) {
        const int64_t j = pair.columns.line(q);
        turned_weights.set_rows(pair.columns.first_offset(j), pair.columns.last_offset(j));
        for (int64_t i = 0, count; i < height; i += count) {
            count = i == R - 1 && pair.rows.inner > 0 ? pair.rows.inner : 1;
            turned_weights.set_columns(pair.rows.first_offset(i), pair.rows.last_offset(i));
            const Convolution c = turned_weights.of(pair.column(0, q, j) + i, pair.column(1, q, j) + i, height);
            if (count > 1)
                convolve(c, count, out);
            else
                out[0] = convolve_at(c);
            for (int64_t k = 0; k < count; ++k) gradient[(i + k) * width + j] = T(out[k]);
        }
    }
}

// The weights K (d, 2d) of the gradient, from the Cholesky factor U (2d, stride) of G + aI. With U = [[A, B], [0, C]],
// the last d columns of its inverse are [X; Y] = [-A^-1 B C^-1; C^-1], and K = X [X; Y]^T / d.
double* gradient_weights(const double* U, int64_t d, int64_t stride, Scratch& scratch) {
    const int64_t columns = padded(d);
    double *const inverse = scratch.take<double>(2 * d * columns), *const turned = scratch.take<double>(d * stride);
    double *const padded_K = scratch.take<double>(d * stride), *const K = scratch.take<double>(2 * d * d);
    std::fill(inverse, inverse + 2 * d * columns, 0.0);
    for (int64_t i = 0; i < d; ++i) inverse[(d + i) * columns + i] = 1;
    solve_upper(U, 2 * d, stride, inverse, columns);
    std::fill(turned, turned + d * stride, 0.0);
    for (int64_t i = 0; i < 2 * d; ++i)
        for (int64_t j = 0; j < d; ++j) turned[j * stride + i] = inverse[i * columns + j];
    std::fill(padded_K, padded_K + d * stride, 0.0);
    subtract_product({inverse, columns, 1}, turned, stride, d, stride, d, padded_K, stride);
    for (int64_t i = 0; i < d; ++i)
        for (int64_t k = 0; k < 2 * d; ++k) K[i * 2 * d + k] = padded_K[i * stride + k] * (-1.0 / d);
    return K;
}

// RMI of probabilities that are the labels, of which G (2d, stride) has the covariance in its last rows and columns.
double perfect_rmi(const double* G, int64_t d, int64_t stride, double alpha, Scratch& scratch) {
    const int64_t columns = padded(d);
    double* const matrix = scratch.take<double>(d * columns);
    double value = 0.5 * std::log(alpha);
    for (double times : {2.0, 1.0}) {
        for (int64_t i = 0; i < d; ++i) {
            for (int64_t j = i; j < d; ++j) matrix[i * columns + j] = times * G[(d + i) * stride + d + j];
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
    if (r.with_gradient) region_gradient(pair, gradient_weights(G, d, stride, scratch), gradient, scratch);
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
