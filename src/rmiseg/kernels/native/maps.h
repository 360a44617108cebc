// The pooled maps of one class of one sample, and how they are cut for sums over rectangles of positions.
//
// Images are volumes of one slice, in whose regions there is one slice.

#pragma once

#include <cmath>

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

// Whether a value is not zero.
template <class T>
LEAF bool any(const T* map, int64_t count) {
    int nonzero = 0;
    for (int64_t i = 0; i < count; ++i) nonzero |= map[i] != 0;
    return nonzero;
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

// The same for one of a problem's maps.
inline bool widen_map(const Regions& r, const void* maps, int64_t index, int64_t count, double* out) {
    return r.is_double ? widen(static_cast<const double*>(maps) + index * count, count, out)
                       : widen(static_cast<const float*>(maps) + index * count, count, out);
}

LEAF void subtract(double value, int64_t count, double* __restrict out) {
    for (int64_t i = 0; i < count; ++i) out[i] -= value;
}

// to += scale * from, of blocks of numbers (rows, columns).
LEAF void add_block(double scale, int64_t rows, int64_t columns, const double* from, int64_t from_stride, double* __restrict to,
                    int64_t to_stride) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j) to[i * to_stride + j] += scale * from[i * from_stride + j];
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

    // The line that an edge is; of number `edges`, which stands for all that is inside, the first.
    int64_t line(int64_t edge) const { return edge < R - 1 || edge == edges ? std::min(edge, R - 1) : edge + inner; }
    int64_t lines(int64_t edge) const { return edge < edges ? 1 : inner; }
    // The number of an edge; all that is inside has the last.
    int64_t edge(int64_t line) const { return line < R - 1 || inner == 0 ? line : line < R - 1 + inner ? edges : line - inner; }
    // The offsets that a line has in its regions.
    int64_t first_offset(int64_t line) const { return std::max<int64_t>(0, line - positions + 1); }
    int64_t last_offset(int64_t line) const { return std::min(line, R - 1); }
};

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

// Two maps, centered, in float64, and the columns near their ends as rows.
struct Pair {
    const Regions& r;
    const int64_t R, area, d;  // the side of a region, and how many values there are in one of its slices, and in all
    const Cut slices, rows, columns;
    double* map[2];      // probabilities, labels: (depth, height, width)
    double* turned[2];   // (depth, 2, near, height): columns 0 to near - 1, and the last `near` columns
    double* sums;        // (2, d): over all positions, of the value at each offset of the regions
    double mean[2];      // what was subtracted
    const int64_t near;
    bool absent;         // the class is not in the sample

    // What may be read beyond the ends of the arrays.
    static constexpr int64_t PAD = 32;

    Pair(const Regions& r, int64_t index, Scratch& scratch)
        : r(r),
          R(r.region_size),
          area(R * R),
          d(region_values(r)),
          slices(r.depth, d / area),
          rows(r.height, R),
          columns(r.width, R),
          near(std::min(r.width, 2 * (R - 1))) {
        const int64_t count = r.depth * r.height * r.width;
        const void* const sources[2] = {r.probabilities, r.labels};
        for (int kind = 0; kind < 2; ++kind) {
            map[kind] = scratch.take<double>(count + PAD);
            absent = !widen_map(r, sources[kind], index, count, map[kind]);  // of the labels, which come last
            mean[kind] = sum(map[kind], count) / double(count);
            subtract(mean[kind], count, map[kind]);
            std::fill(map[kind] + count, map[kind] + count + PAD, 0.0);
            turned[kind] = scratch.take<double>(r.depth * 2 * near * r.height + PAD);
            double* out = turned[kind];
            for (int64_t z = 0; z < r.depth; ++z)
                for (int64_t first : {int64_t(0), r.width - near})
                    for (int64_t j = first; j < first + near; ++j)
                        for (int64_t i = 0; i < r.height; ++i) *out++ = row(kind, z, i)[j];
            std::fill(out, out + PAD, 0.0);
        }
        sum_regions(scratch);
    }

    // How many values there are in a region.
    static int64_t region_values(const Regions& r) { return r.region_size * r.region_size * (r.depth > 1 ? r.region_size : 1); }

    bool finite() const { return std::isfinite(mean[0]); }
    // The mean over all positions of number k of the 2d values.
    double center(int64_t k) const { return mean[k / d] + sums[k] / positions(); }
    double positions() const { return double(slices.positions * rows.positions * columns.positions); }
    const double* row(int kind, int64_t z, int64_t i) const { return map[kind] + (z * r.height + i) * r.width; }
    // Column j, near the same end as edge number q, as a row.
    const double* column(int kind, int64_t z, int64_t q, int64_t j) const {
        return turned[kind] + (z * 2 * near + (q < R - 1 ? j : near + j - (r.width - near))) * r.height;
    }

  private:
    void sum_regions(Scratch& scratch) {
        const int64_t stride = padded(R), count = (rows.edges + 1) * stride;
        double* const by_row = scratch.take<double>(count);  // (row, offset), edges and what is inside
        double* const by_slice = scratch.take<double>((slices.edges + 1) * R * stride);
        double* const by_offset = scratch.take<double>(slices.R * R * stride);
        sums = scratch.take<double>(2 * d);
        for (int kind = 0; kind < 2; ++kind) {
            std::fill(by_slice, by_slice + (slices.edges + 1) * R * stride, 0.0);
            for (int64_t p = 0; p <= slices.edges; ++p) {
                std::fill(by_row, by_row + count, 0.0);
                for (int64_t z = slices.line(p); z < slices.line(p) + slices.lines(p); ++z)
                    for (int64_t i = 0; i < r.height; ++i) {
                        const double* const values = row(kind, z, i);
                        double* const out = by_row + rows.edge(i) * stride;
                        double value = sum(values, columns.positions);
                        for (int64_t b = 0; b < R; ++b) {
                            out[b] += value;
                            value += values[std::min(b + columns.positions, r.width - 1)] - values[b];  // in vain after the last
                        }
                    }
                sum_lines(by_row, rows, R, stride, by_slice + p * R * stride);
            }
            sum_lines(by_slice, slices, slices.R, R * stride, by_offset);
            for (int64_t line = 0; line < d / R; ++line) std::copy_n(by_offset + line * stride, R, sums + kind * d + line * R);
        }
    }
};

}  // namespace
