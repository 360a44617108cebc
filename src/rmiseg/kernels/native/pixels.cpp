// Pixel loss and pooled maps, and their gradient: the logits are read once forward and once backward, row by row, and
// what lies in between stays in the nearest caches. Smaller logits are interpolated row by row.
//
// Work is cut into tasks in a way that depends on the shapes alone, and no two tasks write to the same place: results
// are the same to the last bit whatever the number of threads.

#include <numeric>

#include "plan.h"

namespace {

constexpr int64_t PRODUCT = 64;  // factors of at most 2 whose product is far from overflow

// The leaves for a problem's pixel loss.
template <class T>
struct Leaves {
    decltype(&forward_row<T, true, true, true>) forward;
    decltype(&backward_row<T, SOFTMAX, true, true>) backward;

    Leaves(const Problem& p, bool is_soft) {
        if (p.pool != NONE)
            is_soft ? choose<true, true>(p) : choose<true, false>(p);
        else
            is_soft ? choose<false, true>(p) : choose<false, false>(p);
    }

  private:
    template <bool HAS_REGIONS, bool IS_SOFT>
    void choose(const Problem& p) {
        if (p.pixel_loss == BCE) {
            forward = forward_row<T, false, HAS_REGIONS, IS_SOFT>;
            backward = backward_row<T, SIGMOID, HAS_REGIONS, IS_SOFT>;
        } else {
            forward = forward_row<T, true, HAS_REGIONS, IS_SOFT>;
            if (p.class_weights && !IS_SOFT)
                backward = backward_row<T, WEIGHTED_SOFTMAX, HAS_REGIONS, IS_SOFT>;
            else
                backward = backward_row<T, SOFTMAX, HAS_REGIONS, IS_SOFT>;
        }
    }
};

// Softmax, of rows [top, bottom): each pixel's largest logit, and the sum over classes of e^(logit - largest).
template <class T>
void softmax_terms(Reader<T>& reader, const Problem& p, int64_t n, int64_t top, int64_t bottom, const T* weight, T* peak,
                   T* total) {
    std::fill(peak, peak + (bottom - top) * p.width, -std::numeric_limits<T>::infinity());
    std::fill(total, total + (bottom - top) * p.width, T(0));
    for (const bool first : {true, false})
        for (int64_t c = 0; c < p.classes; ++c) {
            reader.start(n, c);
            for (int64_t y = top; y < bottom; ++y) {
                const int64_t at = (y - top) * p.width;
                if (first)
                    take_maximum(reader.row(y), p.width, peak + at);
                else
                    add_exponentials(reader.row(y), peak + at, p.width, total + at);
            }
        }
    silence(weight, (bottom - top) * p.width, peak, total);
}

// The weight of each pixel's class, 0 where it does not count.
template <class T>
void class_weights_of(const Problem& p, const int32_t* label, int64_t count, T* weight) {
    for (int64_t i = 0; i < count; ++i)
        weight[i] = 0 <= label[i] && label[i] < p.classes ? T(p.class_weights[label[i]]) : T(0);
}

// The sum over the classes of what is true of each, times its weight.
template <class T>
void truth_of_all_classes(const Problem& p, TruthReader<T>& truth, int64_t n, int64_t top, int64_t bottom, const T* weight,
                          T* sums) {
    std::fill(sums, sums + (bottom - top) * p.width, T(0));
    for (int64_t c = 0; c < p.classes; ++c) {
        truth.start(n, c);
        for (int64_t y = top; y < bottom; ++y) {
            const int64_t at = (y - top) * p.width;
            add_truth(truth.row(y, nullptr).soft, weight + at, p.class_weights ? T(p.class_weights[c]) : T(1), p.width, sums + at);
        }
    }
}

// The probabilities of single rows, as the forward pass makes them.
template <class T>
class Probabilities {
  public:
    explicit Probabilities(const Plan<T>& plan)
        : p(plan.p), leaves(plan.p, false), reader(plan), label(p.width), weight(p.width), unused(2 * p.width) {}

    void start(int64_t sample, int64_t klass) { reader.start(n = sample, klass); }

    void row(int64_t y, T* out) {
        read_weights(p.valid + (n * p.height + y) * p.width, p.width, weight.data());
        const Truth<T> nothing = {label.data(), -1, nullptr};
        T* const sums = unused.data();
        leaves.forward(reader.row(y), nothing, weight.data(), 1, p.width, sums, sums, sums + p.width, out, nullptr);
    }

  private:
    const Problem& p;
    Leaves<T> leaves;
    Reader<T> reader;
    std::vector<int32_t> label;
    std::vector<T> weight, unused;
    int64_t n = 0;
};

// Averages or maxima of the windows of a row, from the sums or maxima of its columns, to which `offset` is still to be
// added. `columns` has room for a whole number of windows: padding, the image, and what is beyond it.
template <class T>
void pool_row(const Plan<T>& plan, const T* columns, int64_t rows_inside, T offset, T* out) {
    const Problem& p = plan.p;
    const T scale = T(1) / T(plan.size * plan.size);
    if (p.pool == MAXIMUM) {
        for (int64_t k = 0; k < p.pw; ++k)
            out[k] = *std::max_element(columns + k * plan.size, columns + (k + 1) * plan.size) + offset;
        return;
    }
    sum_windows(columns, plan.size, p.pw, out);
    // The offset is on every pixel, but not on the zeros around the image.
    scale_and_add(scale, offset * T(rows_inside * plan.size) * scale, p.pw, out);
    if (offset == 0) return;
    const int64_t left = plan.padding, right = std::max<int64_t>(0, p.pw * plan.size - plan.padding - p.width);
    out[0] -= offset * T(rows_inside * left) * scale;
    out[p.pw - 1] -= offset * T(rows_inside * right) * scale;
}

// The sums or maxima of the columns of a row of windows, gathered row by row.
template <class T>
class Columns {
  public:
    Columns(const Plan<T>& plan, Scratch& scratch) : plan(plan), width(plan.p.width) {
        const int64_t padded_width = plan.padding + width + plan.size;
        padded = scratch.take<T>(padded_width);
        single = scratch.take<T>(width);
        std::fill(padded, padded + padded_width, T(0));
    }

    // Where the next row of a window goes, before `add`.
    T* row(bool is_first) { return is_first ? padded + plan.padding : single; }

    void add(bool is_first) {
        if (is_first) return;
        if (plan.p.pool == AVERAGE) add_scaled(single, T(1), width, padded + plan.padding);
        if (plan.p.pool == MAXIMUM) take_maximum(single, width, padded + plan.padding);
    }

    T* padded;

  private:
    const Plan<T>& plan;
    int64_t width;
    T* single;
};

// A block of rows of windows of a sample (of rows of pixels, if pooling has no windows). Returns its part of the sum.
template <class T>
double forward_block(const Plan<T>& plan, int64_t task, Scratch& scratch) {
    const Problem& p = plan.p;
    const bool is_soft = p.soft, is_ce = p.pixel_loss == CE;
    const Leaves<T> leaves(p, is_soft);
    const int64_t n = task / plan.blocks, block = task % plan.blocks * plan.block;
    const int64_t first = block / plan.size, last = first + plan.block / plan.size;  // windows
    const int64_t top = plan.window_begin(first), bottom = plan.window_end(last - 1, p.height);
    const int64_t count = std::max<int64_t>(bottom - top, 0) * p.width;
    const bool class_by_class = !is_ce && p.class_weights;
    const int64_t weighted_count = class_by_class ? count : 0;
    auto label = scratch.take<int32_t>(is_soft ? 0 : count);
    T *const weight = scratch.take<T>(count), *const pixel = scratch.take<T>(count), *const product = scratch.take<T>(count);
    T *const peak = scratch.take<T>(is_ce && is_soft ? count : 0), *const weighted = scratch.take<T>(weighted_count);
    std::fill(weighted, weighted + weighted_count, T(0));
    Columns<T> columns(plan, scratch), truths(plan, scratch);
    Reader<T> reader(plan);
    TruthReader<T> truth(p);

    const int64_t begin_pixel = (n * p.height + top) * p.width;
    read_weights(p.valid + begin_pixel, count, weight);
    if (!is_soft) read_labels(p.target + begin_pixel, p.valid + begin_pixel, count, label);
    std::fill(pixel, pixel + count, T(0));
    if (!is_ce) {
        std::fill(product, product + count, T(1));
    } else if (is_soft) {
        T* const sums = scratch.take<T>(count);
        softmax_terms(reader, p, n, top, bottom, weight, peak, sums);
        std::fill(product, product + count, T(0));
        add_logarithm(sums, count, product);
    } else {
        softmax_terms(reader, p, n, top, bottom, weight, pixel, product);
    }
    for (int64_t c = 0; c < p.classes; ++c) {
        reader.start(n, c);
        truth.start(n, c);
        const T class_weight = p.class_weights ? T(p.class_weights[c]) : T(1);
        for (int64_t k = first; k < last; ++k) {
            const int64_t begin = plan.window_begin(k), end = plan.window_end(k, p.height);
            for (int64_t y = begin; y < end; ++y) {
                const int64_t at = (y - top) * p.width;
                leaves.forward(reader.row(y), truth.row(y, label + at), weight + at, class_weight, p.width, peak + at,
                               pixel + at, product + at, columns.row(y == begin), truths.row(y == begin));
                columns.add(y == begin);
                if (is_soft) truths.add(y == begin);
            }
            if (!plan.windows || k >= p.ph) continue;
            const T offset = is_ce ? T(0) : T(OFFSET);
            pool_row(plan, columns.padded, end - begin, offset, plan.map(p.probabilities, n, c) + k * p.pw);
            if (is_soft) pool_row(plan, truths.padded, end - begin, T(0), plan.map(p.labels, n, c) + k * p.pw);
        }
        if (!is_ce && (class_by_class || (c + 1) % PRODUCT == 0)) {
            add_logarithm(product, count, pixel);
            std::fill(product, product + count, T(1));
        }
        if (class_by_class) {
            add_scaled(pixel, class_weight, count, weighted);
            std::fill(pixel, pixel + count, T(0));
        }
    }
    if (!(is_ce && is_soft)) add_logarithm(product, count, pixel);
    if (is_ce && !is_soft && p.class_weights) class_weights_of(p, label, count, weight);
    return weighted_sum(class_by_class ? weighted : pixel, weight, count);
}

// The pooled one-hot labels of the same windows.
template <class T>
void label_block(const Plan<T>& plan, int64_t task) {
    const Problem& p = plan.p;
    const int64_t n = task / plan.blocks, block = task % plan.blocks * plan.block;
    const int64_t first = block / plan.size, last = std::min(first + plan.block / plan.size, p.ph);
    for (int64_t c = 0; c < p.classes && first < last; ++c) {
        T* const map = plan.map(p.labels, n, c);
        std::fill(map + first * p.pw, map + last * p.pw, T(0));
    }
    const int64_t pixels = p.ph * p.pw;
    T* const maps = plan.map(p.labels, n, 0);
    for (int64_t row = first; row < last; ++row) {
        T* const out = maps + row * p.pw;
        for (int64_t y = plan.window_begin(row); y < plan.window_end(row, p.height); ++y) {
            const int64_t* const target = p.target + (n * p.height + y) * p.width;
            const uint8_t* const valid = p.valid + (n * p.height + y) * p.width;
            for (int64_t k = 0; k < p.pw; ++k)
                for (int64_t x = plan.window_begin(k), end = plan.window_end(k, p.width); x < end; ++x)
                    if (valid[x] && target[x] < p.classes) out[target[x] * pixels + k] += 1;
        }
    }
    const T share = T(1) / T(plan.size * plan.size);
    for (int64_t c = 0; c < p.classes && first < last; ++c) {
        T* const map = maps + c * pixels + first * p.pw;
        for (int64_t i = 0; i < (last - first) * p.pw; ++i) map[i] = p.pool == AVERAGE ? map[i] * share : T(map[i] > 0);
    }
}

// INTERPOLATION: one row of the probabilities of all classes of a sample.
template <class T>
void interpolated_row(const Plan<T>& plan, int64_t task, Scratch& scratch) {
    const Problem& p = plan.p;
    const int64_t n = task / p.ph, row = task % p.ph;
    T *const upper = scratch.take<T>(p.width), *const lower = scratch.take<T>(p.width), *const wide = scratch.take<T>(p.width);
    const T weight = plan.pool_rows.weight[row], offset = p.pixel_loss == BCE ? T(OFFSET) : T(0);
    Probabilities<T> probabilities(plan);
    for (int64_t c = 0; c < p.classes; ++c) {
        T* const out = plan.map(p.probabilities, n, c) + row * p.pw;
        probabilities.start(n, c);
        probabilities.row(plan.pool_rows.low[row], upper);
        probabilities.row(plan.pool_rows.high[row], lower);
        blend(upper, 1 - weight, lower, weight, p.width, wide);
        interpolate(wide, plan.pool_columns.low.data(), plan.pool_columns.high.data(), plan.pool_columns.weight.data(),
                    p.pw, out);
        for (int64_t k = 0; k < p.pw; ++k) out[k] += offset;
    }
}

// The gradient in one of a sample's sums.
template <class T>
T grad_of(const Problem& p, int64_t n, int64_t k) {
    return static_cast<const T*>(p.grad_sums)[n * p.grad_strides[0] + k * p.grad_strides[1]];
}

// Rows of the gradient in the probabilities of one class, from that in its pooled map.
template <class T>
class Unpool {
  public:
    explicit Unpool(const Plan<T>& plan)
        : plan(plan),
          p(plan.p),
          probabilities(plan),
          rows((p.pool == MAXIMUM ? 2 * plan.size : 1) * (plan.padding + p.width + plan.size)) {}

    void start(int64_t n, int64_t c) {
        map = plan.map(p.gradient_maps, n, c);
        grad_rmi = T(double(grad_of<T>(p, n, 1)) * p.map_weights.at(n, c));
        at = -1;
        if (p.pool == MAXIMUM) probabilities.start(n, c);
    }

    const T* row(int64_t y) {
        const int64_t window = (y + plan.padding) / plan.size;
        if (window != at) {
            at = window;
            if (p.pool != AVERAGE || window >= p.ph) std::fill(rows.begin(), rows.end(), T(0));
            if (p.pool == INTERPOLATION)
                interpolation(y);
            else if (window < p.ph)
                p.pool == AVERAGE ? average(window) : maximum(window);
        }
        if (p.pool == AVERAGE) return rows.data() + plan.padding;
        return rows.data() + (p.pool == MAXIMUM ? y - plan.window_begin(window) : 0) * p.width;
    }

  private:
    // Whole windows; columns that are in none stay zero.
    void average(int64_t window) {
        spread_windows(map + window * p.pw, grad_rmi / T(plan.size * plan.size), plan.size, p.pw, rows.data());
    }

    // To the first of the largest, in reading order.
    void maximum(int64_t window) {
        const int64_t top = plan.window_begin(window), height = plan.window_end(window, p.height) - top;
        T* const probability = rows.data() + plan.size * p.width;
        for (int64_t y = 0; y < height; ++y) probabilities.row(top + y, probability + y * p.width);
        for (int64_t k = 0; k < p.pw; ++k) {
            int64_t best = plan.window_begin(k);
            for (int64_t y = 0; y < height; ++y)
                for (int64_t x = plan.window_begin(k); x < plan.window_end(k, p.width); ++x)
                    if (probability[y * p.width + x] > probability[best]) best = y * p.width + x;
            rows[best] = grad_rmi * map[window * p.pw + k];
        }
    }

    void interpolation(int64_t y) {
        const Axis<T>&vertical = plan.pool_rows, &horizontal = plan.pool_columns;
        for (int64_t k = vertical.first(y - 1); k < p.ph && vertical.low[k] <= y; ++k) {
            T share = 0;  // of the row, in the interpolated one
            if (vertical.low[k] == y) share += 1 - vertical.weight[k];
            if (vertical.high[k] == y) share += vertical.weight[k];
            for (int64_t j = 0; j < p.pw; ++j) {
                const T value = grad_rmi * share * map[k * p.pw + j];
                rows[horizontal.low[j]] += (1 - horizontal.weight[j]) * value;
                rows[horizontal.high[j]] += horizontal.weight[j] * value;
            }
        }
    }

    const Plan<T>& plan;
    const Problem& p;
    Probabilities<T> probabilities;
    const T* map = nullptr;  // (ph, pw)
    T grad_rmi = 0;
    std::vector<T> rows;     // of the row of windows `at`
    int64_t at = -1;
};

// A block of rows of the gradient of a sample.
template <class T>
void backward_block(const Plan<T>& plan, int64_t task, Scratch& scratch) {
    const Problem& p = plan.p;
    const bool is_soft = p.soft;
    const Leaves<T> leaves(p, is_soft);
    const int64_t n = task / plan.blocks, block = task % plan.blocks * plan.block;
    // Rows of the gradient, and the rows of the image that take part in them.
    const int64_t begin = plan.small ? block : std::max<int64_t>(block - plan.padding, 0);
    const int64_t end = plan.small ? std::min(block + plan.block, p.h) : std::min(block + plan.block - plan.padding, p.height);
    const int64_t top = plan.small ? plan.rows.first(begin - 1) : begin;
    const int64_t bottom = plan.small ? plan.rows.first(end) : end;
    const int64_t count = std::max<int64_t>(bottom - top, 0) * p.width;
    const int64_t sum_count = plan.small ? (end - begin) * p.width : 0;
    const bool weighted = p.pixel_loss == CE && (p.class_weights || is_soft);
    const int64_t weighted_count = weighted ? count : 0;
    auto label = scratch.take<int32_t>(is_soft ? 0 : count);
    T *const weight = scratch.take<T>(count), *const peak = scratch.take<T>(count), *const total = scratch.take<T>(count);
    T *const sums = scratch.take<T>(sum_count), *const out = scratch.take<T>(p.width), *const narrow = scratch.take<T>(p.w);
    T* const pixel_weight = scratch.take<T>(weighted_count);
    Reader<T> reader(plan);
    TruthReader<T> truth(p);
    Unpool<T> unpool(plan);

    const int64_t begin_pixel = (n * p.height + top) * p.width;
    read_weights(p.valid + begin_pixel, count, weight);
    if (!is_soft) read_labels(p.target + begin_pixel, p.valid + begin_pixel, count, label);
    if (p.pixel_loss == CE) softmax_terms(reader, p, n, top, bottom, weight, peak, total);
    if (weighted && is_soft) truth_of_all_classes(p, truth, n, top, bottom, weight, pixel_weight);
    if (weighted && !is_soft) class_weights_of(p, label, count, pixel_weight);
    for (int64_t c = 0; c < p.classes; ++c) {
        reader.start(n, c);
        truth.start(n, c);
        const T class_weight = p.class_weights ? T(p.class_weights[c]) : T(1);
        if (p.pool != NONE) unpool.start(n, c);
        std::fill(sums, sums + sum_count, T(0));
        const T grad_pixel = T(grad_of<T>(p, n, 0) * (p.pixel_loss == BCE && p.class_weights ? p.class_weights[c] : 1.0));
        for (int64_t y = top; y < bottom; ++y) {
            const int64_t at = (y - top) * p.width;
            const Row row = row_of(p.gradient, p.gradient_strides, p.element, n, c, plan.small ? 0 : y);
            const bool direct = !plan.small && row.template is_contiguous<T>();
            leaves.backward(reader.row(y), truth.row(y, label + at), weight + at, class_weight, p.width, peak + at, total + at,
                            weighted ? pixel_weight + at : nullptr, grad_pixel, p.pool == NONE ? nullptr : unpool.row(y),
                            direct ? static_cast<T*>(row.data) : out);
            if (!plan.small && !direct) write(row, p.width, out);
            if (!plan.small) continue;
            const int64_t low = plan.rows.low[y], high = plan.rows.high[y];
            const T share = plan.rows.weight[y];
            if (begin <= low && low < end) add_scaled(out, 1 - share, p.width, sums + (low - begin) * p.width);
            if (begin <= high && high < end) add_scaled(out, share, p.width, sums + (high - begin) * p.width);
        }
        for (int64_t y = begin; plan.small && y < end; ++y) {
            const T* const from = sums + (y - begin) * p.width;
            std::fill(narrow, narrow + p.w, T(0));
            for (int64_t x = 0; x < p.width; ++x) {
                const T share = plan.columns.weight[x];
                narrow[plan.columns.low[x]] += (1 - share) * from[x];
                narrow[plan.columns.high[x]] += share * from[x];
            }
            write(row_of(p.gradient, p.gradient_strides, p.element, n, c, y), p.w, narrow);
        }
    }
}

// The class of the largest logit of each pixel of a block of rows of a sample, the first of several; NaN is never largest.
template <class T>
void argmax_block(const Plan<T>& plan, int64_t task, Scratch& scratch) {
    const Problem& p = plan.p;
    const int64_t n = task / plan.blocks, top = task % plan.blocks * plan.block;
    const int64_t bottom = std::min(top + plan.block, p.height), count = (bottom - top) * p.width;
    T *const largest = scratch.take<T>(count), *const best = scratch.take<T>(count);
    std::fill(largest, largest + count, -std::numeric_limits<T>::infinity());
    std::fill(best, best + count, T(0));
    Reader<T> reader(plan);
    for (int64_t c = 0; c < p.classes; ++c) {
        reader.start(n, c);
        for (int64_t y = top; y < bottom; ++y)
            take_larger(reader.row(y), T(c), p.width, largest + (y - top) * p.width, best + (y - top) * p.width);
    }
    auto ids = static_cast<uint8_t*>(p.labels) + (n * p.height + top) * p.width;
    for (int64_t i = 0; i < count; ++i) ids[i] = uint8_t(best[i]);
}

template <class T>
void forward(const Problem& p) {
    const Plan<T> plan(p, false);
    std::vector<double> parts(p.samples * plan.blocks);
    for_each_task(p.samples * plan.blocks, p.threads, [&](int64_t task, Scratch& scratch) {
        parts[task] = forward_block(plan, task, scratch);
        if (plan.windows && !p.soft) label_block(plan, task);
    });
    for (int64_t n = 0; n < p.samples; ++n) {
        const auto first = parts.begin() + n * plan.blocks;
        static_cast<T*>(p.pixel_sums)[n] = T(std::accumulate(first, first + plan.blocks, 0.0));
    }
    if (p.pool == INTERPOLATION)
        for_each_task(p.samples * p.ph, p.threads,
                      [&](int64_t task, Scratch& scratch) { interpolated_row(plan, task, scratch); });
}

template <class T>
void argmax(const Problem& p) {
    const Plan<T> plan(p, false);
    for_each_task(p.samples * plan.blocks, p.threads,
                  [&](int64_t task, Scratch& scratch) { argmax_block(plan, task, scratch); });
}

template <class T>
void backward(const Problem& p) {
    const Plan<T> plan(p, true);
    for_each_task(p.samples * plan.blocks, p.threads,
                  [&](int64_t task, Scratch& scratch) { backward_block(plan, task, scratch); });
}

}  // namespace

extern "C" {

void rmiseg_forward(const Problem* p) { p->element == FLOAT64 ? forward<double>(*p) : forward<float>(*p); }

void rmiseg_argmax(const Problem* p) { p->element == FLOAT64 ? argmax<double>(*p) : argmax<float>(*p); }

void rmiseg_backward(const Problem* p) { p->element == FLOAT64 ? backward<double>(*p) : backward<float>(*p); }

int64_t rmiseg_problem_size() { return sizeof(Problem); }
}
