// How a problem is cut into tasks, and how the rows of its logits and of its target are read.

#pragma once

#include "common.h"
#include "interface.h"
#include "rows.h"

constexpr int64_t BLOCK_BYTES = 1 << 20;  // logits of a task: what is read again comes from the second-level cache
constexpr int64_t BLOCK_ROWS = 32;        // of a task at most, so that there are tasks for many threads

// Where each of `size` places lies between `source` ones: at low + weight; high is low + 1, or low at the end.
template <class T>
struct Axis {
    std::vector<int32_t> low, high;
    std::vector<T> weight;

    Axis() = default;
    Axis(int64_t source, int64_t size, bool align_corners) : low(size), high(size), weight(size) {
        for (int64_t i = 0; i < size; ++i) {
            const double at = align_corners ? (size > 1 ? i * double(source - 1) / double(size - 1) : 0.0)
                                            : std::max((i + 0.5) * source / size - 0.5, 0.0);
            low[i] = int32_t(std::min<int64_t>(int64_t(at), source - 1));
            high[i] = int32_t(std::min<int64_t>(low[i] + 1, source - 1));
            weight[i] = T(std::min(at - low[i], 1.0));
        }
    }

    // The first place whose low is at least `value`.
    int64_t first(int64_t value) const { return std::lower_bound(low.begin(), low.end(), value) - low.begin(); }
};

// What the tasks of a problem share. Pooling windows are size x size, on a grid that begins `padding` above and left of
// the image; windows of a last row or column that the image cuts off do not count in the pooled maps (floor mode).
template <class T>
struct Plan {
    const Problem& p;
    bool small, windows;                 // whether logits are smaller than labels; whether pooling has windows
    int64_t size, padding;
    Axis<T> rows, columns;               // of small logits
    Axis<T> pool_rows, pool_columns;     // INTERPOLATION
    int64_t block, blocks;               // rows of a task (of small logits in the backward pass); tasks of a sample

    Plan(const Problem& p, bool is_backward) : p(p) {
        small = p.h != p.height || p.w != p.width;
        if (small) {
            rows = Axis<T>(p.h, p.height, p.align_corners);
            columns = Axis<T>(p.w, p.width, p.align_corners);
        }
        if (p.pool == INTERPOLATION) {
            pool_rows = Axis<T>(p.height, p.ph, true);
            pool_columns = Axis<T>(p.width, p.pw, true);
        }
        windows = p.pool == AVERAGE || p.pool == MAXIMUM;
        size = windows ? p.pool_size : 1;
        padding = size / 2;
        if (small && is_backward) {
            // Higher, because neighbors both compute the rows between them.
            block = std::max<int64_t>(4, 2 * BLOCK_ROWS * p.h / p.height);
            blocks = (p.h + block - 1) / block;
        } else {
            const int64_t cached = small ? BLOCK_ROWS : BLOCK_BYTES / int64_t(p.classes * p.width * sizeof(T));
            block = std::max<int64_t>(1, std::min(cached, BLOCK_ROWS) / size) * size;
            blocks = (p.height + padding + block - 1) / block;
        }
    }

    // Pixels of window k along an axis of the image.
    int64_t window_begin(int64_t k) const { return std::max<int64_t>(k * size - padding, 0); }
    int64_t window_end(int64_t k, int64_t side) const { return std::min((k + 1) * size - padding, side); }

    T* map(void* maps, int64_t n, int64_t c) const { return static_cast<T*>(maps) + (n * p.classes + c) * p.ph * p.pw; }
    const T* map(const void* maps, int64_t n, int64_t c) const { return map(const_cast<void*>(maps), n, c); }
};

inline Row row_of(void* data, const int64_t* strides, int64_t element, int64_t n, int64_t c, int64_t y) {
    const int64_t bytes = element == FLOAT64 ? 8 : element == FLOAT32 ? 4 : 2;
    const int64_t offset = n * strides[0] + c * strides[1] + y * strides[2];
    return {static_cast<char*>(data) + offset * bytes, element, strides[3]};
}

// Rows of full-size logits of one class of one sample; quickest from top to bottom.
template <class T>
class Reader {
  public:
    explicit Reader(const Plan<T>& plan)
        : plan(plan), source(plan.p.w), upper(plan.small ? plan.p.width : 0), lower(upper), out(plan.p.width) {}

    void start(int64_t sample, int64_t klass) {
        n = sample;
        c = klass;
        at_upper = at_lower = -1;
    }

    const T* row(int64_t y) {
        if (!plan.small) return plain_row(y, out.data());
        const int64_t low = plan.rows.low[y], high = plan.rows.high[y];
        if (at_upper != low && at_lower == low) {
            upper.swap(lower);
            std::swap(at_upper, at_lower);
        }
        widen(low, at_upper, upper);
        widen(high, at_lower, lower);
        const T weight = plan.rows.weight[y];
        blend(upper.data(), 1 - weight, lower.data(), weight, plan.p.width, out.data());
        return out.data();
    }

  private:
    const T* plain_row(int64_t y, T* buffer) {
        const Row row = row_of(plan.p.logits, plan.p.logits_strides, plan.p.element, n, c, y);
        if (row.template is_contiguous<T>()) return static_cast<const T*>(row.data);
        read(row, plan.p.w, buffer);
        return buffer;
    }
    void widen(int64_t y, int64_t& at, std::vector<T>& wide) {
        if (at == y) return;
        at = y;
        interpolate(plain_row(y, source.data()), plan.columns.low.data(), plan.columns.high.data(),
                    plan.columns.weight.data(), plan.p.width, wide.data());
    }

    const Plan<T>& plan;
    std::vector<T> source, upper, lower, out;
    int64_t n = 0, c = 0, at_upper = -1, at_lower = -1;
};

// What is true of one class of one sample, row by row: of class ids, or of soft targets.
template <class T>
class TruthReader {
  public:
    explicit TruthReader(const Problem& p) : p(p), buffer(p.soft ? p.width : 0) {}

    void start(int64_t sample, int64_t klass) {
        n = sample;
        c = klass;
    }

    // `label`: the class ids of the row, if there are any.
    Truth<T> row(int64_t y, const int32_t* label) {
        if (!p.soft) return {label, int32_t(c), nullptr};
        const int64_t strides[4] = {p.classes * p.height * p.width, p.height * p.width, p.width, 1};
        const Row row = row_of(const_cast<void*>(p.soft), strides, p.soft_element, n, c, y);
        if (row.template is_contiguous<T>()) return {nullptr, 0, static_cast<const T*>(row.data)};
        read(row, p.width, buffer.data());
        return {nullptr, 0, buffer.data()};
    }

  private:
    const Problem& p;
    std::vector<T> buffer;
    int64_t n = 0, c = 0;
};
