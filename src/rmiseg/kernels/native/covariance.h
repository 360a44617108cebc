// Covariances of regions.
//
// With A, B in {p, y}, the entry of G for A at offset (c, a, b) and B at (c + dz, a + di, b + dj) is the sum of
// A[z, i, j] B[z + dz, i + di, j + dj] over a box of positions that begins at (c, a, b). For one lag (dz, di, dj) these boxes
// have nearly everything in common: the sum over that is taken once, and those over edges are taken apart. So there are
// (2R - 1)^2 products of maps (^3 of volumes) in place of R^4 (R^6).

#pragma once

#include "maps.h"

namespace {

// Lags at once, the sums of which stay in registers.
constexpr int64_t MOST_LAGS = 8;

// A rectangle of numbers. Reading may go up to MOST_LAGS + LANES beyond its end, where there must be numbers too.
struct View {
    const double* data;
    int64_t rows, columns, stride;
};

// sums[k] += sum of a[i, j] b[i, j + k], for `lags` values of k, over all i, j of a.
template <int64_t COUNT>
INLINE void add_lags(View a, const double* b, int64_t b_stride, int64_t lags, double* sums) {
    if constexpr (COUNT > 1)
        if (lags < COUNT) return add_lags<COUNT - 1>(a, b, b_stride, lags, sums);
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
    for (int64_t parts = (lags + MOST_LAGS - 1) / MOST_LAGS, count; parts > 0; --parts, lags -= count, b += count, sums += count) {
        count = (lags + parts - 1) / parts;
        add_lags<MOST_LAGS>(a, b, b_stride, count, sums);  // as constants, so that the sums stay in registers
    }
}

// A slice of one of a pair's maps.
struct Slice {
    int kind;
    int64_t z;
};

// Sums of products of slices at lags di, from 0 to R - 1, and dj, from 1 - R to R - 1.
class LagSums {
  public:
    const int64_t lags;  // lags of columns, and what fills them up

    LagSums(const Pair& pair, Scratch& scratch)
        : lags(padded(2 * pair.R - 1)),
          pair(pair),
          rows(pair.rows),
          columns(pair.columns),
          R(pair.R),
          side(2 * R - 1),
          inner(scratch.take<double>(R * side)),
          edges(scratch.take<double>(columns.edges * side * R)),
          sums(scratch.take<double>(R * lines() * line())),
          by_column(scratch.take<double>(lines() * R * lags)) {}

    // How many numbers `by_offset` gives.
    int64_t count() const { return R * pair.area * lags; }

    void clear() {
        std::fill(inner, inner + R * side, 0.0);
        std::fill(edges, edges + columns.edges * side * R, 0.0);
        std::fill(sums, sums + R * lines() * line(), 0.0);
    }

    // Adds the products of s at (i, j) and t at (i + di, j + dj), for di from `first` on.
    void add(Slice s, Slice t, int64_t first) {
        // Inner rows and columns, a few rows at a time: they are read again for every lag.
        const int64_t height = rows.side, width = columns.side, block = std::max<int64_t>(1, BLOCK_VALUES / width);
        for (int64_t i = R - 1; i < R - 1 + rows.inner; i += block)
            for (int64_t di = first; di < R; ++di) {
                const View a = {pair.row(s.kind, s.z, i) + R - 1, std::min(block, R - 1 + rows.inner - i), columns.inner, width};
                products_at_lags(a, pair.row(t.kind, t.z, i + di), width, side, inner + di * side);
            }
        // Inner rows, edges of columns.
        for (int64_t q = 0; q < columns.edges; ++q)
            for (int64_t k = 0, j = columns.line(q); k < side; ++k) {
                const int64_t other = j + k - (R - 1);
                if (other < 0 || other >= width) continue;
                const View column = {pair.column(s.kind, s.z, q, j) + R - 1, 1, rows.inner, height};
                products_at_lags(column, pair.column(t.kind, t.z, q, other) + R - 1, height, R, edges + (q * side + k) * R);
            }
        // Edges of rows.
        for (int64_t di = first; di < R; ++di)
            for (int64_t p = 0; p < rows.edges; ++p) {
                const int64_t i = rows.line(p);
                if (i + di >= height) continue;
                const double *const a = pair.row(s.kind, s.z, i), *const b = pair.row(t.kind, t.z, i + di);
                double* const out = at(di, p);
                products_at_lags({a + R - 1, 1, columns.inner, width}, b, width, side, out + columns.edges * lags);
                for (int64_t q = 0; q < columns.edges; ++q) {
                    const int64_t j = columns.line(q), begin = std::max<int64_t>(0, R - 1 - j);
                    const int64_t end = std::min(side, width - j + R - 1);
                    add_block(a[j], 1, end - begin, b + j + begin - (R - 1), 0, out + q * lags + begin, 0);
                }
            }
    }

    // Sums over the rectangles that begin at (a, b): (R, R, R, lags), by (di, a, b, dj), for di from `first` on and a < R - di.
    void by_offset(int64_t first, double* out) {
        for (int64_t di = first; di < R; ++di) {
            double* const inside = at(di, rows.edges);
            std::copy_n(inner + di * side, side, inside + columns.edges * lags);
            for (int64_t q = 0; q < columns.edges; ++q)
                for (int64_t k = 0; k < side; ++k) inside[q * lags + k] = edges[(q * side + k) * R + di];
            for (int64_t p = 0; p < lines(); ++p) sum_lines(at(di, p), columns, R, lags, by_column + p * R * lags);
            sum_lines(by_column, rows, R - di, R * lags, out + di * pair.area * lags);
        }
    }

  private:
    static constexpr int64_t BLOCK_VALUES = 1 << 11;  // what is read again lies in the first-level cache

    int64_t lines() const { return rows.edges + 1; }
    int64_t line() const { return (columns.edges + 1) * lags; }
    double* at(int64_t di, int64_t p) const { return sums + (di * lines() + p) * line(); }

    const Pair& pair;
    const Cut &rows, &columns;
    const int64_t R, side;
    double* const inner;      // (di, dj): inner rows and columns
    double* const edges;      // (edge of columns, dj, di): inner rows
    double* const sums;       // (di, row, column, dj): edges one by one, and last what is inside
    double* const by_column;  // (row, b, dj)
};

// Writes the entries of G for A at offset c (of slices) + A_shift and B at c + B_shift. `values` is `LagSums::by_offset`.
struct Entries {
    int A, B;
    int64_t A_slice, B_slice;  // offsets of slices
    int64_t first;             // the least lag of rows
    bool is_upper;             // A comes before B
    bool is_same;              // A is B, and lags of rows and columns have two signs
};
void write_entries(const Pair& pair, Entries e, const double* values, int64_t lags, double* G, int64_t stride) {
    const int64_t R = pair.R, area = pair.area, d = pair.d, A = e.A * d + e.A_slice * area, B = e.B * d + e.B_slice * area;
    for (int64_t di = e.first; di < R; ++di)
        for (int64_t o = 0; o < (R - di) * R; ++o) {
            const int64_t b = o % R, from = di == 0 && e.is_same ? b : 0, column = B + (o / R + di) * R;
            const double *const found = values + (di * area + o) * lags + R - 1 - b, *const sums = pair.sums;
            const double mean = sums[A + o] / pair.positions();
            double* const to = e.is_upper ? G + (A + o) * stride + column : G + column * stride + A + o;
            const int64_t step = e.is_upper ? 1 : stride;
            for (int64_t k = from; k < R; ++k) to[k * step] = found[k] - mean * sums[column + k];
        }
}

// G is (2d, stride), out: its upper triangle.
void covariance(const Pair& pair, double* G, int64_t stride, Scratch& scratch) {
    const Cut& slices = pair.slices;
    LagSums sums(pair, scratch);
    const int64_t count = sums.count();
    double *const by_slice = scratch.take<double>((slices.edges + 1) * count), *const by_offset = scratch.take<double>(slices.R * count);
    std::fill(by_slice, by_slice + (slices.edges + 1) * count, 0.0);
    for (int64_t dz = 0; dz < slices.R; ++dz)
        for (int order = 0; order < (dz ? 2 : 1); ++order)  // 1: A is the slice that comes later
            for (int A = 0; A < 2; ++A)
                for (int B = 0; B < 2; ++B) {
                    // G is symmetric: what is there with A and B in each other's place is left out.
                    const int64_t first = order == 1 || (dz == 0 && A > B);
                    for (int64_t p = 0; p <= slices.edges; ++p) {
                        sums.clear();
                        for (int64_t z = slices.line(p); z < slices.line(p) + slices.lines(p); ++z)
                            if (z + dz < slices.side) sums.add({A, z + order * dz}, {B, z + (1 - order) * dz}, first);
                        sums.by_offset(first, by_slice + p * count);
                    }
                    sum_lines(by_slice, slices, slices.R - dz, count, by_offset);
                    for (int64_t c = 0; c < slices.R - dz; ++c) {
                        const bool is_upper = A < B || (A == B && order == 0);
                        const Entries entries = {A, B, c + order * dz, c + (1 - order) * dz, first, is_upper, A == B && dz == 0};
                        write_entries(pair, entries, by_offset + c * count, sums.lags, G, stride);
                    }
                }
}

}  // namespace
