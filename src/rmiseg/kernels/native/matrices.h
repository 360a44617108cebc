// Vectors of float64, and symmetric positive definite matrices of them. Matrices are stored by rows of `stride` numbers,
// a multiple of LANES; what lies beyond the columns may be read and written, and means nothing.

#pragma once

#include <cmath>
#include <limits>

#include "common.h"

namespace {

// As many as a register holds: GCC copies longer vectors number by number.
#if defined(__AVX512F__)
constexpr int64_t LANES = 8;
#elif defined(__AVX__)
constexpr int64_t LANES = 4;
#else
constexpr int64_t LANES = 2;
#endif
typedef double Lanes __attribute__((vector_size(LANES * sizeof(double))));
typedef double LooseLanes __attribute__((vector_size(LANES * sizeof(double)), aligned(8)));

INLINE Lanes lanes(const double* a) { return *reinterpret_cast<const LooseLanes*>(a); }
INLINE void store(Lanes values, double* a) { *reinterpret_cast<LooseLanes*>(a) = values; }

INLINE double total(Lanes values) {
    double sums[LANES];
    store(values, sums);
    for (int64_t half = LANES / 2; half > 0; half /= 2)
        for (int64_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
    return sums[0];
}

INLINE int64_t padded(int64_t columns) { return (columns + LANES - 1) / LANES * LANES; }

// Numbers that lie `across` from row to row and `along` from column to column.
struct Factors {
    const double* data;
    int64_t across, along;
};

template <int64_t ROWS, int64_t WIDTH>
INLINE void subtract_tile(Factors a, const double* b, int64_t inner, int64_t stride, double* out, int64_t out_stride) {
    Lanes sums[ROWS][WIDTH];
    for (int64_t i = 0; i < ROWS; ++i)
        for (int64_t k = 0; k < WIDTH; ++k) sums[i][k] = lanes(out + i * out_stride + k * LANES);
    for (int64_t at = 0; at < inner; ++at, b += stride, a.data += a.along)
        for (int64_t k = 0; k < WIDTH; ++k)
            for (int64_t i = 0; i < ROWS; ++i) sums[i][k] -= a.data[i * a.across] * lanes(b + k * LANES);
    for (int64_t i = 0; i < ROWS; ++i)
        for (int64_t k = 0; k < WIDTH; ++k) store(sums[i][k], out + i * out_stride + k * LANES);
}

// out -= a b, of (rows, inner) and (inner, columns), which are a multiple of LANES.
LEAF void subtract_product(Factors a, const double* b, int64_t stride, int64_t rows, int64_t columns, int64_t inner,
                           double* out, int64_t out_stride) {
    for (int64_t i = 0; i < rows;) {
        const Factors here = {a.data + i * a.across, a.across, a.along};
        double* const to = out + i * out_stride;
        const int64_t height = rows - i >= 4 ? 4 : 1;
        int64_t j = 0;
        if (height == 4) {
            for (; j + 2 * LANES <= columns; j += 2 * LANES) subtract_tile<4, 2>(here, b + j, inner, stride, to + j, out_stride);
            for (; j < columns; j += LANES) subtract_tile<4, 1>(here, b + j, inner, stride, to + j, out_stride);
        } else {
            for (; j + 2 * LANES <= columns; j += 2 * LANES) subtract_tile<1, 2>(here, b + j, inner, stride, to + j, out_stride);
            for (; j < columns; j += LANES) subtract_tile<1, 1>(here, b + j, inner, stride, to + j, out_stride);
        }
        i += height;
    }
}

LEAF void scale_row(double scale, int64_t count, double* __restrict row) {
    for (int64_t j = 0; j < count; ++j) row[j] *= scale;
}

// Rows that are worked on one by one; all before them, or behind them, at once.
constexpr int64_t BLOCK = 8;

// Replaces a matrix (n, n), of which the upper triangle is read, by its Cholesky factor U, an upper triangle with
// U^T U = matrix. Where the matrix is not positive definite, as with numbers that are not finite, the rest is NaN.
inline void factorize(double* matrix, int64_t n, int64_t stride) {
    for (int64_t block = 0; block < n; block += BLOCK) {
        const int64_t columns = stride - block, end = std::min(block + BLOCK, n);
        double* const right = matrix + block;  // the columns that the block's rows begin at
        subtract_product({right, 1, stride}, right, stride, end - block, columns, block, right + block * stride, stride);
        for (int64_t i = block; i < end; ++i) {
            double* const row = right + i * stride;
            subtract_product({right + block * stride + i - block, 1, stride}, right + block * stride, stride, 1, columns,
                             i - block, row, stride);
            const double pivot = row[i - block] > 0 ? std::sqrt(row[i - block]) : std::numeric_limits<double>::quiet_NaN();
            scale_row(1 / pivot, columns, row);
            row[i - block] = pivot;
        }
    }
}

// Replaces x (n, stride) by the solution of U x = x, where U (n, n) is an upper triangle.
inline void solve_upper(const double* U, int64_t n, int64_t U_stride, double* x, int64_t stride) {
    for (int64_t block = (n - 1) / BLOCK * BLOCK; block >= 0; block -= BLOCK) {
        const int64_t end = std::min(block + BLOCK, n);
        const auto subtract_known = [&](int64_t first, int64_t rows, int64_t from, int64_t to) {
            subtract_product({U + first * U_stride + from, U_stride, 1}, x + from * stride, stride, rows, stride, to - from,
                             x + first * stride, stride);
        };
        subtract_known(block, end - block, end, n);
        for (int64_t i = end - 1; i >= block; --i) {
            subtract_known(i, 1, i + 1, end);
            scale_row(1 / U[i * U_stride + i], stride, x + i * stride);
        }
    }
}

// The sum of the logarithms of diagonal elements, from `first` on.
inline double log_diagonal(const double* U, int64_t first, int64_t n, int64_t stride) {
    double sum = 0;
    for (int64_t i = first; i < n; ++i) sum += std::log(U[i * stride + i]);
    return sum;
}

}  // namespace
