// A whole loss of images with class ids, from the checking of labels to the mean, and its gradient.

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "common.h"
#include "interface.h"

namespace {

constexpr int64_t THREAD_VALUES = 1 << 14;  // full-size logits, or values of pooled maps, that are worth a thread

int64_t threads_for(const Loss& l, int64_t values) {
    return std::min(l.threads, std::max<int64_t>(1, values / THREAD_VALUES));
}

Problem problem_of(const Loss& l) {
    Problem p = {};
    p.threads = threads_for(l, l.samples * l.classes * l.height * l.width);
    p.samples = l.samples, p.classes = l.classes, p.h = l.h, p.w = l.w, p.height = l.height, p.width = l.width;
    p.element = l.element, p.align_corners = l.align_corners, p.pixel_loss = l.pixel_loss;
    p.pool = l.pool, p.pool_size = l.pool_size, p.ph = l.ph, p.pw = l.pw;
    std::copy_n(l.logits_strides, 4, p.logits_strides);
    p.logits = l.logits, p.target = l.ids ? l.ids : static_cast<const int64_t*>(l.target), p.valid = l.valid;
    return p;
}

// The loss, and its slopes in the sums over all samples; false if labels are neither of a class nor ignored.
template <class T>
bool forward(const Loss& l) {
    const int64_t maps = l.samples * l.classes, values = maps * l.ph * l.pw;
    std::vector<int64_t> counts(2 * l.samples);
    std::vector<uint8_t> unknown(l.samples);
    Labels labels = {};
    labels.threads = threads_for(l, l.samples * l.classes * l.height * l.width);
    labels.samples = l.samples, labels.pixels = l.height * l.width, labels.classes = l.classes;
    labels.ignored = l.ignored, labels.ignored_count = l.ignored_count, labels.element = l.target_element;
    labels.target = l.target, labels.ids = l.ids, labels.valid = l.valid;
    labels.counts = counts.data(), labels.unknown = unknown.data();
    rmiseg_read_labels(&labels);
    if (std::count(unknown.begin(), unknown.end(), 0) < l.samples) return false;

    std::vector<T> pixel_sums(l.samples), sums(2 * l.samples);
    const std::unique_ptr<T[]> pooled(new T[values]), own_maps(l.maps ? nullptr : new T[values]);
    Problem p = problem_of(l);
    p.pixel_sums = pixel_sums.data(), p.labels = pooled.get(), p.probabilities = l.maps ? l.maps : own_maps.get();
    rmiseg_forward(&p);

    double pixels = 0, counted = 0, pixel = 0, rmi = 0;
    if (l.pool != NONE) {
        std::vector<double> each(maps), perfect(l.from_perfect ? maps : 0);
        std::vector<uint8_t> counted_maps(l.is_batch ? maps : 0);
        for (int64_t map = 0; l.is_batch && map < maps; ++map) counted_maps[map] = uint8_t(counts[2 * (map / l.classes) + 1]);
        Regions r = {};
        r.threads = threads_for(l, values), r.maps = maps, r.depth = 1, r.height = l.ph, r.width = l.pw;
        r.region_size = l.region_size, r.is_double = sizeof(T) == 8, r.with_gradient = l.maps != nullptr;
        if (l.is_batch) r.batch = l.classes, r.counted = counted_maps.data();
        r.samples = l.samples, r.from_perfect = l.from_perfect, r.alpha = l.alpha, r.floor = l.floor;
        r.probabilities = p.probabilities, r.labels = p.labels, r.rmi = each.data();
        r.perfect = l.from_perfect ? perfect.data() : nullptr;
        r.sums = sums.data(), r.pixel_sums = p.pixel_sums, r.map_weights = {counts.data() + 1, 1, 2, 0};
        rmiseg_regions(&r);
    }
    for (int64_t n = 0; n < l.samples; ++n) {
        pixels += counts[2 * n], counted += counts[2 * n + 1], pixel += pixel_sums[n], rmi += sums[2 * n + 1];
    }
    double slopes[2] = {l.pixel_share / std::max(pixels + l.extra, 1.0), counted > 0 ? l.region_share / counted : 0};
    double value = slopes[0] * pixel + (l.pool != NONE ? slopes[1] * rmi : 0);
    if (!(std::abs(value) <= std::numeric_limits<T>::max())) value = slopes[0] = slopes[1] = std::numeric_limits<T>::quiet_NaN();
    if (l.is_batch) slopes[1] *= counted;  // since the RMI of a class is that of each sample
    *static_cast<T*>(l.loss) = T(value);
    for (int k : {0, 1}) static_cast<T*>(l.slopes)[k] = T(slopes[k]);
    return true;
}

template <class T>
void backward(const Loss& l) {
    T grad_sums[2];
    for (int k : {0, 1}) grad_sums[k] = *static_cast<const T*>(l.loss) * static_cast<const T*>(l.slopes)[k];
    Problem p = problem_of(l);
    // Samples without a pixel that counts have no gradient.
    const int64_t one = 1;
    p.grad_sums = grad_sums, p.grad_strides[1] = 1;
    p.map_weights = {&one, 1, 0, 0};
    std::copy_n(l.gradient_strides, 4, p.gradient_strides);
    p.gradient_maps = l.maps, p.gradient = l.gradient;
    rmiseg_backward(&p);
}

}  // namespace

extern "C" {

int64_t rmiseg_loss_size() { return sizeof(Loss); }

int64_t rmiseg_loss_forward(const Loss* l) { return l->element == FLOAT64 ? forward<double>(*l) : forward<float>(*l); }

void rmiseg_loss_backward(const Loss* l) { l->element == FLOAT64 ? backward<double>(*l) : backward<float>(*l); }
}
