// RMI of pooled maps, and its gradient. For the formulas see rmiseg/kernels/regions.py.

#include <cmath>
#include <limits>
#include <memory>
#include <numeric>

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
    void gradient(const double* K, const double* constants, T* out, Scratch& scratch) const {
        region_gradient(*this, K, constants, out, scratch);
    }
};

// Replaces the covariance G (2d, stride) by what follows from it: RMI, that of probabilities that are the labels, unless that is
// null, and K, or null.
const double* solve(const Regions& r, double* G, int64_t d, double* rmi, double* perfect, Scratch& scratch) {
    const int64_t stride = padded(2 * d);
    if (perfect) *perfect = perfect_rmi(G, d, stride, r.alpha, scratch);
    for (int64_t i = 0; i < 2 * d; ++i) G[i * stride + i] += r.alpha;
    factorize(G, 2 * d, stride);
    *rmi = log_diagonal(G, d, 2 * d, stride) / d;
    return r.with_gradient ? gradient_weights(G, d, stride, scratch) : nullptr;
}

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
    double *const G = scratch.take<double>(2 * d * stride), *const constants = scratch.take<double>(d);
    std::fill(G, G + 2 * d * stride, 0.0);
    std::fill(constants, constants + d, 0.0);
    pair.covariance(G, stride, scratch);
    const double* const K = solve(r, G, d, r.rmi + index, r.perfect ? r.perfect + index : nullptr, scratch);
    if (K) pair.gradient(K, constants, gradient, scratch);
}

// Classes with one covariance in all samples. Of maps with covariances G_n and means z_n over P positions it is the sum of
// G_n + P (z_n - z) (z_n - z)^T, where z is the mean of all z_n.
template <class T, class Maps>
class Batch {
  public:
    explicit Batch(const Regions& r)
        : r(r),
          samples(r.maps / r.batch),
          count(r.depth * r.height * r.width),
          d(Maps::region_values(r)),
          stride(padded(2 * d)),
          block(std::clamp<int64_t>(MOST_VALUES / (samples * 2 * d * stride), 1, r.batch)),
          covariances(new double[samples * block * 2 * d * stride]),
          means(new double[samples * block * 2 * d]),
          constants(new double[samples * block * d]),
          weights(new double[block * 2 * d * d]),
          nothing(new double[block]),
          present(new bool[block]) {}

    void run() {
        for (first = 0; first < r.batch; first += block) {
            const int64_t classes = std::min(block, r.batch - first), maps = samples * classes;
            const auto each_map = [&](auto step) {
                for_each_task(maps, r.threads, [&](int64_t task, Scratch& scratch) {
                    const int64_t n = task / classes, c = task % classes;
                    (this->*step)(map(n, c), n * block + c, c, scratch);
                });
            };
            for_each_task(classes, r.threads, [&](int64_t c, Scratch&) { look(c); });
            each_map(&Batch::read);
            for_each_task(classes, r.threads, [&](int64_t c, Scratch& scratch) { join(c, scratch); });
            if (r.with_gradient) each_map(&Batch::write);
        }
    }

  private:
    static constexpr int64_t MOST_VALUES = 1 << 21;  // in the covariances that are kept at a time

    int64_t map(int64_t n, int64_t c) const { return n * r.batch + first + c; }

    // Runs step(map, place) for the maps that count.
    template <class Step>
    void for_each_counted(int64_t c, Step step) const {
        for (int64_t n = 0; n < samples; ++n)
            if (r.counted[map(n, c)]) step(map(n, c), n * block + c);
    }

    // Sees whether a class is there; where it is not, nothing else happens.
    void look(int64_t c) {
        present[c] = false, nothing[c] = 0;
        for_each_counted(c, [&](int64_t map, int64_t) { present[c] |= any(static_cast<const T*>(r.labels) + map * count, count); });
        if (present[c]) return;
        for_each_counted(c, [&](int64_t map, int64_t) {
            const T* const values = static_cast<const T*>(r.probabilities) + map * count;
            for (int64_t i = 0; i < count; ++i) nothing[c] += 0 * values[i];  // NaN where one is not finite
        });
    }

    void read(int64_t map, int64_t place, int64_t c, Scratch& scratch) {
        if (!present[c] || !r.counted[map]) return;
        const Maps pair(r, map, scratch);
        double *const G = covariances.get() + place * 2 * d * stride, *const mean = means.get() + place * 2 * d;
        std::fill(G, G + 2 * d * stride, 0.0);
        pair.covariance(G, stride, scratch);
        for (int64_t k = 0; k < 2 * d; ++k) mean[k] = pair.center(k);
    }

    void join(int64_t c, Scratch& scratch) {
        double perfect = 0.5 * std::log(r.alpha), rmi = perfect + nothing[c];
        if (present[c]) {
            double* const G = scratch.take<double>(2 * d * stride);
            add_up(c, G, scratch);
            if (const double* const K = solve(r, G, d, &rmi, r.perfect ? &perfect : nullptr, scratch)) {
                std::copy_n(K, 2 * d * d, weights.get() + c * 2 * d * d);
                for_each_counted(c, [&](int64_t, int64_t place) {
                    const double* const mean = means.get() + place * 2 * d;
                    for (int64_t o = 0; o < d; ++o)
                        constants[place * d + o] = std::inner_product(mean, mean + 2 * d, K + o * 2 * d, 0.0);
                });
            }
        }
        for (int64_t n = 0; n < samples; ++n) {
            if (r.present) r.present[map(n, c)] = present[c];
            r.rmi[map(n, c)] = rmi;
            if (r.perfect) r.perfect[map(n, c)] = perfect;
        }
    }

    // Makes the covariance of a class, (2d, stride), and subtracts the mean of its means from each.
    void add_up(int64_t c, double* G, Scratch& scratch) {
        double* const mean = scratch.take<double>(2 * d);
        int64_t maps = 0;
        std::fill(G, G + 2 * d * stride, 0.0);
        std::fill(mean, mean + 2 * d, 0.0);
        for_each_counted(c, [&](int64_t, int64_t place) {
            add_block(1, 1, 2 * d * stride, covariances.get() + place * 2 * d * stride, 0, G, 0);
            add_block(1, 1, 2 * d, means.get() + place * 2 * d, 0, mean, 0);
            ++maps;
        });
        const int64_t depths = r.depth > 1 ? r.depth - r.region_size + 1 : 1;
        const double positions = double(depths * (r.height - r.region_size + 1) * (r.width - r.region_size + 1));
        for_each_counted(c, [&](int64_t, int64_t place) {
            double* const own = means.get() + place * 2 * d;
            add_block(-1.0 / maps, 1, 2 * d, mean, 0, own, 0);
            for (int64_t k = 0; k < 2 * d; ++k) add_block(positions * own[k], 1, 2 * d, own, 0, G + k * stride, 0);
        });
    }

    void write(int64_t map, int64_t place, int64_t c, Scratch& scratch) {
        T* const gradient = static_cast<T*>(r.probabilities) + map * count;
        if (!present[c] || !r.counted[map])
            std::fill(gradient, gradient + count, r.counted[map] ? T(nothing[c]) : T(0));
        else
            Maps(r, map, scratch).gradient(weights.get() + c * 2 * d * d, constants.get() + place * d, gradient, scratch);
    }

    const Regions& r;
    const int64_t samples, count, d, stride, block;
    int64_t first = 0;                       // of the classes of a block
    const std::unique_ptr<double[]> covariances, means, constants;  // (samples, block, ...): (2d, stride), (2d,) and (d,)
    const std::unique_ptr<double[]> weights, nothing;  // (block, ...): (d, 2d); 0, or NaN where a class that is absent has one
    const std::unique_ptr<bool[]> present;   // (block,)
};

template <class T, class Maps>
void run(const Regions& r) {
    if (r.batch && r.maps)
        Batch<T, Maps>(r).run();
    else
        for_each_task(r.maps, r.threads, [&](int64_t map, Scratch& scratch) { regions<T, Maps>(r, map, scratch); });
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
    const bool copied = Copies::serve(*r);
    if (r->is_double)
        copied ? run<double, Copies>(*r) : run<double, WholeMaps>(*r);
    else
        copied ? run<float, Copies>(*r) : run<float, WholeMaps>(*r);
    if (r->sums) r->is_double ? join<double>(*r) : join<float>(*r);
}
}
