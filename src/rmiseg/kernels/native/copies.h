// Small maps: the values at all offsets of the regions are copied, so that the covariance and the gradient are products of
// matrices. That takes more multiplications than sums over what offsets have in common, see covariance.h, but nothing else.

#pragma once

#include "maps.h"
#include "matrices.h"

namespace {

// Positions, and values of a map at all offsets, of which copies are still faster.
constexpr int64_t COPIED_POSITIONS = 576, COPIED_VALUES = 1 << 14;

// The values of an image at all R^2 offsets, (R^2, stride); `stride` is at least the number of positions. Up to LANES numbers
// beyond the end of both arrays are touched.
LEAF void copy_offsets(const double* map, int64_t width, int64_t R, int64_t rows, int64_t columns, int64_t stride, double* out) {
    for (int64_t a = 0; a < R; ++a)
        for (int64_t b = 0; b < R; ++b, out += stride)
            for (int64_t i = 0; i < rows; ++i)
                for (int64_t j = 0; j < columns; j += LANES)
                    store(lanes(map + (i + a) * width + b + j), out + i * columns + j);
}

// Subtracts the mean of its first `count` numbers from each row; what is beyond them becomes 0.
LEAF void center_rows(double* values, int64_t rows, int64_t count, int64_t stride, double* means) {
    Lanes inside = {};  // in the last lanes of a row
    for (int64_t lane = 0; lane < LANES; ++lane) inside[lane] = stride - LANES + lane < count;
    for (double* const end = values + rows * stride; values < end; values += stride, ++means) {
        Lanes sums = {};
        std::fill(values + count, values + stride, 0.0);
        for (int64_t i = 0; i < stride; i += LANES) sums += lanes(values + i);
        *means = total(sums) / double(count);
        for (int64_t i = 0; i < stride; i += LANES) store(lanes(values + i) - *means, values + i);
        store(lanes(values + stride - LANES) * inside, values + stride - LANES);
    }
}

// The upper triangle of G (n, G_stride) = Z Z^T, of Z (n, stride); rows of Z up to a multiple of TILE are read.
constexpr int64_t TILE = 4;
LEAF void own_products(const double* Z, int64_t n, int64_t stride, double* G, int64_t G_stride) {
    for (int64_t i = 0; i < n; i += TILE)
        for (int64_t j = i; j < n; j += TILE) {
            Lanes sums[TILE * TILE] = {};
            const double *const left = Z + i * stride, *const right = Z + j * stride;
            for (int64_t k = 0; k < stride; k += LANES) {
                Lanes rights[TILE];
                for (int64_t b = 0; b < TILE; ++b) rights[b] = lanes(right + b * stride + k);
                for (int64_t a = 0; a < TILE; ++a) {
                    const Lanes own = lanes(left + a * stride + k);
                    for (int64_t b = 0; b < TILE; ++b) sums[a * TILE + b] += own * rights[b];
                }
            }
            double found[TILE * TILE];
            for (int64_t k = 0; k < TILE * TILE; ++k) found[k] = total(sums[k]);
            for (int64_t a = 0; a < std::min(TILE, n - i); ++a)
                for (int64_t b = 0; b < std::min(TILE, n - j); ++b) G[(i + a) * G_stride + j + b] = found[a * TILE + b];
        }
}

// The other way than `copy_offsets`: subtracts values at each offset (R^2, stride) from where they come from.
LEAF void subtract_offsets(const double* values, int64_t width, int64_t R, int64_t rows, int64_t columns, int64_t stride,
                           double* map) {
    const int64_t rest = columns % LANES, whole = columns - rest;
    Lanes inside = {};
    for (int64_t lane = 0; lane < LANES; ++lane) inside[lane] = lane < rest;
    for (int64_t a = 0; a < R; ++a)
        for (int64_t b = 0; b < R; ++b, values += stride)
            for (int64_t i = 0; i < rows; ++i) {
                const double* const from = values + i * columns;
                double* const to = map + (i + a) * width + b;
                for (int64_t j = 0; j < whole; j += LANES) store(lanes(to + j) - lanes(from + j), to + j);
                if (rest) store(lanes(to + whole) - inside * lanes(from + whole), to + whole);
            }
}

// Two maps of an image, in float64, and copies of them.
struct Copies {
    const Regions& r;
    const int64_t R, d, rows, columns, stride;
    double* copied;  // (2d, stride), centered
    double* means;   // (2d,), what was subtracted
    bool absent;     // the class is not in the sample
    double sum;      // of the probabilities

    static bool serve(const Regions& r) {
        const int64_t R = r.region_size, positions = (r.height - R + 1) * (r.width - R + 1);
        return r.depth == 1 && positions <= COPIED_POSITIONS && R * R * positions <= COPIED_VALUES;
    }

    Copies(const Regions& r, int64_t index, Scratch& scratch)
        : r(r),
          R(r.region_size),
          d(R * R),
          rows(r.height - R + 1),
          columns(r.width - R + 1),
          stride(padded(rows * columns)),
          copied(scratch.take<double>((2 * d + TILE) * stride + LANES)),
          means(scratch.take<double>(2 * d)) {
        const int64_t count = r.height * r.width;
        double* const map[2] = {scratch.take<double>(count + LANES), scratch.take<double>(count + LANES)};
        widen_map(r, r.probabilities, index, count, map[0]);
        absent = !widen_map(r, r.labels, index, count, map[1]);
        sum = ::sum(map[0], count);
        if (absent && !r.batch) return;
        for (int kind : {0, 1}) copy_offsets(map[kind], r.width, R, rows, columns, stride, copied + kind * d * stride);
        center_rows(copied, 2 * d, rows * columns, stride, means);
        std::fill(copied + 2 * d * stride, copied + (2 * d + TILE) * stride, 0.0);
    }

    static int64_t region_values(const Regions& r) { return r.region_size * r.region_size; }

    bool finite() const { return std::isfinite(sum); }
    double center(int64_t k) const { return means[k]; }

    void covariance(double* G, int64_t G_stride, Scratch&) const { own_products(copied, 2 * d, stride, G, G_stride); }

    // See `region_gradient`.
    template <class T>
    void gradient(const double* K, const double* constants, T* out, Scratch& scratch) const {
        const int64_t count = r.height * r.width;
        double *const each = scratch.take<double>(d * stride + LANES), *const map = scratch.take<double>(count + LANES);
        for (int64_t o = 0; o < d; ++o) std::fill(each + o * stride, each + (o + 1) * stride, -constants[o]);
        std::fill(map, map + count + LANES, 0.0);
        subtract_product({K, 2 * d, 1}, copied, stride, d, stride, 2 * d, each, stride);
        subtract_offsets(each, r.width, R, rows, columns, stride, map);
        for (int64_t i = 0; i < count; ++i) out[i] = T(map[i]);
    }
};

}  // namespace
