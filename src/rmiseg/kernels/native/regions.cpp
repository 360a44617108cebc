// RMI of pooled maps, and its gradient. For the formulas see rmiseg/kernels/regions.py.

#include <cmath>
#include <limits>

#include "common.h"
#include "copies.h"
#include "covariance.h"
#include "gradient.h"
#include "interface.h"
#include "maps.h"
#include "matrices.h"

namespace {

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

// A pair of maps of any size, of images or volumes.
struct WholeMaps : Pair {
    using Pair::Pair;
    void covariance(double* G, int64_t stride, Scratch& scratch) const { ::covariance(*this, G, stride, scratch); }
    template <class T>
    void gradient(const double* K, T* out, Scratch& scratch) const {
        region_gradient(*this, K, out, scratch);
    }
};

// Maps: `WholeMaps` or `Copies`.
template <class T, class Maps>
void regions(const Regions& r, int64_t index, Scratch& scratch) {
    const Maps pair(r, index, scratch);
    const int64_t d = pair.d, stride = padded(2 * d), count = r.depth * r.height * r.width;
    T* const gradient = static_cast<T*>(r.probabilities) + index * count;
    if (r.present) r.present[index] = !pair.absent;
    if (pair.absent) {
        // Nothing to explain: RMI is at its floor, whatever the covariance of p is, and has no gradient.
        const double nothing = pair.finite() ? 0 : std::numeric_limits<double>::quiet_NaN();
        r.rmi[index] = 0.5 * std::log(r.alpha) + nothing;
        if (r.perfect) r.perfect[index] = 0.5 * std::log(r.alpha);
        if (r.with_gradient) std::fill(gradient, gradient + count, T(nothing));
        return;
    }
    double* const G = scratch.take<double>(2 * d * stride);
    std::fill(G, G + 2 * d * stride, 0.0);
    pair.covariance(G, stride, scratch);
    if (r.perfect) r.perfect[index] = perfect_rmi(G, d, stride, r.alpha, scratch);
    for (int64_t i = 0; i < 2 * d; ++i) G[i * stride + i] += r.alpha;
    factorize(G, 2 * d, stride);
    r.rmi[index] = log_diagonal(G, d, 2 * d, stride) / d;
    if (r.with_gradient) pair.gradient(gradient_weights(G, d, stride, scratch), gradient, scratch);
}

// Both sums of every sample.
template <class T>
void join(const Regions& r) {
    const int64_t classes = r.maps / std::max<int64_t>(r.samples, 1);
    for (int64_t n = 0; n < r.samples; ++n) {
        double sum = 0;
        for (int64_t c = 0, map = n * classes; c < classes; ++c, ++map)
            sum += (r.rmi[map] - (r.from_perfect ? r.perfect[map] : r.floor)) * r.map_weights.at(n, c);
        static_cast<T*>(r.sums)[2 * n] = static_cast<const T*>(r.pixel_sums)[n];
        static_cast<T*>(r.sums)[2 * n + 1] = T(sum);
    }
}

}  // namespace

extern "C" {

int64_t rmiseg_regions_size() { return sizeof(Regions); }

void rmiseg_regions(const Regions* r) {
    const auto run = Copies::serve(*r) ? (r->is_double ? regions<double, Copies> : regions<float, Copies>)
                                       : (r->is_double ? regions<double, WholeMaps> : regions<float, WholeMaps>);
    for_each_task(r->maps, r->threads, [&](int64_t map, Scratch& scratch) { run(*r, map, scratch); });
    if (r->sums) r->is_double ? join<double>(*r) : join<float>(*r);
}
}
