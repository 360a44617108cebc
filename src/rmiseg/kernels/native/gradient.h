// The gradient of RMI in the probabilities.

#pragma once

#include "maps.h"

namespace {

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
    convolve_rest<8>(c, (count - j + LANES - 1) / LANES, j, out);
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

// The weights and the constant of a convolution for pixels at some offsets of their regions. At each region the gradient in p is
// K (z - mean), z = [p; y], and a pixel's is the sum over the regions that it is in. So where it is in R^2 regions the
// weights are (2R - 1)^2 for p and as many for y; near the borders, where it is in fewer, fewer terms are in them. Offsets that
// come are added, and those that go are subtracted.
class Weights {
  public:
    // K is (R^2, 2 R^2), constants (R^2,). Of turned regions, and turned maps, rows are columns.
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

// Adds to the gradient of a slice, (height, width), what comes of slice z. K and constants as `Weights` has them.
void add_slice_gradient(const Pair& pair, int64_t z, const double* K, const double* constants, double* gradient,
                        Scratch& scratch) {
    const int64_t R = pair.R, area = pair.area, height = pair.rows.side, width = pair.columns.side;
    double *const turned = scratch.take<double>(2 * area * area), *const turned_constants = scratch.take<double>(area);
    double* const out = scratch.take<double>(padded(std::max(width, height)));
    for (int64_t o = 0; o < area; ++o) {
        const int64_t turned_o = o % R * R + o / R;
        turned_constants[turned_o] = constants[o];
        for (int kind = 0; kind < 2; ++kind)
            for (int64_t a = 0; a < R; ++a)
                for (int64_t b = 0; b < R; ++b)
                    turned[(turned_o * 2 + kind) * area + b * R + a] = K[(o * 2 + kind) * area + a * R + b];
    }

    // Inner columns, row by row.
    Weights weights(K, constants, R, scratch);
    const int64_t inner = pair.columns.inner;
    for (int64_t i = 0; inner > 0 && i < height; ++i) {
        weights.set_rows(pair.rows.first_offset(i), pair.rows.last_offset(i));
        weights.set_columns(0, R - 1);
        convolve(weights.of(pair.row(0, z, i) + R - 1, pair.row(1, z, i) + R - 1, width), inner, out);
        add_block(1, 1, inner, out, 0, gradient + i * width + R - 1, 0);
    }
    // Columns at the edges, each as a row, in stretches with the same offsets.
    Weights turned_weights(turned, turned_constants, R, scratch);
    for (int64_t q = 0; q < pair.columns.edges; ++q) {
        const int64_t j = pair.columns.line(q);
        turned_weights.set_rows(pair.columns.first_offset(j), pair.columns.last_offset(j));
        for (int64_t i = 0, count; i < height; i += count) {
            count = i == R - 1 && pair.rows.inner > 0 ? pair.rows.inner : 1;
            turned_weights.set_columns(pair.rows.first_offset(i), pair.rows.last_offset(i));
            const Convolution c = turned_weights.of(pair.column(0, z, q, j) + i, pair.column(1, z, q, j) + i, height);
            if (count > 1)
                convolve(c, count, out);
            else
                out[0] = convolve_at(c);
            for (int64_t k = 0; k < count; ++k) gradient[(i + k) * width + j] += out[k];
        }
    }
}

// At each region the gradient is K z + constants, with z centered over the positions of these maps: K is (d, 2d), constants
// (d,); gradient (depth, height, width), out.
template <class T>
void region_gradient(const Pair& pair, const double* K, const double* own_constants, T* gradient, Scratch& scratch) {
    const Cut& slices = pair.slices;
    const int64_t area = pair.area, d = pair.d, pixels = pair.r.height * pair.r.width;
    double *const slice = scratch.take<double>(pixels), *const weights = scratch.take<double>(2 * area * area);
    double *const constants = scratch.take<double>(d), *const sums = scratch.take<double>(area);
    for (int64_t o = 0; o < d; ++o) {
        double product = 0;
        for (int64_t k = 0; k < 2 * d; ++k) product += K[o * 2 * d + k] * pair.sums[k];
        constants[o] = own_constants[o] - product / pair.positions();
    }
    const Scratch::Mark mark = scratch.mark();
    for (int64_t z = 0; z < slices.side; ++z, gradient += pixels) {
        const int64_t first = slices.first_offset(z), last = slices.last_offset(z);
        std::fill(slice, slice + pixels, 0.0);
        for (int64_t dz = -last; dz < slices.R - first; ++dz) {
            // Of all regions that have both slices: (R^2, 2, R^2).
            std::fill(weights, weights + 2 * area * area, 0.0);
            std::fill(sums, sums + area, 0.0);
            for (int64_t c = std::max(first, -dz); c <= std::min(last, slices.R - 1 - dz); ++c) {
                add_block(1, 2 * area, area, K + c * area * 2 * d + (c + dz) * area, d, weights, area);
                if (dz == 0) add_block(1, 1, area, constants + c * area, 0, sums, 0);
            }
            scratch.release(mark);
            add_slice_gradient(pair, z + dz, weights, sums, slice, scratch);
        }
        for (int64_t i = 0; i < pixels; ++i) gradient[i] = T(slice[i]);
    }
}

}  // namespace
