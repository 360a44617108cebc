// Leaves: what is done to one row of pixels. T is float, or double for float64 logits. What is not a number stays so.

#pragma once

#include <cmath>
#include <cstring>
#include <limits>

#include "common.h"
#include "interface.h"

constexpr double OFFSET = 1e-6;  // functional.PROBABILITY_OFFSET

template <class To, class From>
INLINE To bits(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To result;
    std::memcpy(&result, &value, sizeof result);
    return result;
}

// e^x for x <= 0, to 1e-7 relative; what would be denormal becomes the least normal number.
INLINE float exp_negative(float x) {
    x = x < -87.3f ? -87.3f : x;
    const float shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the nearest integer is in the lowest bits
    const float n = shifted - 12582912.0f;
    const float r = x - n * 0.693359375f + n * 2.12194440e-4f;  // |r| <= ln 2 / 2
    float e = 1.3888889e-3f;                                    // the series of e^r, rounded at its end
    e = e * r + 8.3333763e-3f;
    e = e * r + 4.1666646e-2f;
    e = e * r + 1.6666666e-1f;
    e = e * r + 0.5f;
    e = e * r + 1.0f;
    e = e * r + 1.0f;
    return bits<float>(bits<uint32_t>(e) + (bits<uint32_t>(shifted) << 23));
}
// To 2e-16 relative.
INLINE double exp_negative(double x) {
    x = x < -708.0 ? -708.0 : x;
    const double shifted = x * 1.4426950408889634 + 6755399441055744.0;  // 1.5 * 2^52
    const double n = shifted - 6755399441055744.0;
    const double r = x - n * 0.693147180369123816490 - n * 1.90821492927058770002e-10;
    double e = 1.0 / 6227020800;  // 1 / 13!
    e = e * r + 1.0 / 479001600;
    e = e * r + 1.0 / 39916800;
    e = e * r + 1.0 / 3628800;
    e = e * r + 1.0 / 362880;
    e = e * r + 1.0 / 40320;
    e = e * r + 1.0 / 5040;
    e = e * r + 1.0 / 720;
    e = e * r + 1.0 / 120;
    e = e * r + 1.0 / 24;
    e = e * r + 1.0 / 6;
    e = e * r + 0.5;
    e = e * r + 1.0;
    e = e * r + 1.0;
    return bits<double>(bits<uint64_t>(e) + (bits<uint64_t>(shifted) << 52));
}

// ln x for x >= 1, to 1e-7 of 1 + ln x.
INLINE float log_above_one(float x) {
    const int32_t whole = bits<int32_t>(x), power = (whole - 0x3f3504f3) >> 23;
    const float f = bits<float>(whole - power * (1 << 23)) - 1.0f;  // 1 + f lies between sqrt(1/2) and sqrt(2)
    const float t = f / (2.0f + f), u = t * t;                  // ln(1 + f) = 2 (t + t^3 / 3 + t^5 / 5 + ...)
    const float series = t * (2.0f + u * (0.66666667f + u * (0.4f + u * (0.28571429f + u * 0.22222222f))));
    const float result = series + power * 0.693147181f;
    return x < std::numeric_limits<float>::infinity() ? result : x;
}
// To 4e-16 of 1 + ln x.
INLINE double log_above_one(double x) {
    const int64_t whole = bits<int64_t>(x), power = (whole - 0x3fe6a09e667f3bcd) >> 52;
    const double f = bits<double>(whole - power * (int64_t(1) << 52)) - 1.0;
    const double t = f / (2.0 + f), u = t * t;
    double series = 2.0 / 23;
    series = series * u + 2.0 / 21;
    series = series * u + 2.0 / 19;
    series = series * u + 2.0 / 17;
    series = series * u + 2.0 / 15;
    series = series * u + 2.0 / 13;
    series = series * u + 2.0 / 11;
    series = series * u + 2.0 / 9;
    series = series * u + 2.0 / 7;
    series = series * u + 2.0 / 5;
    series = series * u + 2.0 / 3;
    series = series * u + 2.0 / 1;
    const double result = t * series + double(power) * 0.69314718055994530942;
    return x < std::numeric_limits<double>::infinity() ? result : x;
}

INLINE float widen_bfloat16(uint16_t x) { return bits<float>(uint32_t(x) << 16); }

INLINE uint16_t narrow_bfloat16(float x) {
    const uint32_t whole = bits<uint32_t>(x);
    return uint16_t(x == x ? (whole + 0x7fff + ((whole >> 16) & 1)) >> 16 : 0x7fc0);
}

INLINE float widen_float16(uint16_t x) {
    const uint32_t magnitude = uint32_t(x & 0x7fff) << 13;
    // The product moves the exponent's bias from 15 to 127, and makes denormal numbers normal.
    const uint32_t finite = bits<uint32_t>(bits<float>(magnitude) * 0x1p112f);
    return bits<float>((magnitude >= 0x7c00u << 13 ? magnitude | 0x7f800000u : finite) | uint32_t(x & 0x8000) << 16);
}

INLINE uint16_t narrow_float16(float x) {
    const uint32_t whole = bits<uint32_t>(x), magnitude = whole & 0x7fffffff;
    // Of numbers that become denormal the sum with 1/2 has the digits that stay.
    const uint32_t small = bits<uint32_t>(bits<float>(magnitude) + 0.5f) - 0x3f000000;
    const uint32_t normal = (magnitude + 0xfff + ((magnitude >> 13) & 1) - (112u << 23)) >> 13;
    const uint32_t special = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;
    const uint32_t result = magnitude >= 0x477ff000 ? special : magnitude < 0x38800000 ? small : normal;
    return uint16_t(result | ((whole >> 16) & 0x8000));
}

// A row of logits, or of their gradient.
struct Row {
    void* data;
    int64_t element, stride;  // stride in elements

    template <class T>
    bool is_contiguous() const {
        return stride == 1 && element == (sizeof(T) == 4 ? FLOAT32 : FLOAT64);
    }
};

template <class T>
LEAF void read(Row row, int64_t count, T* __restrict out) {
    if (row.element == FLOAT32)
        for (int64_t i = 0; i < count; ++i) out[i] = T(static_cast<const float*>(row.data)[i * row.stride]);
    else if (row.element == FLOAT64)
        for (int64_t i = 0; i < count; ++i) out[i] = T(static_cast<const double*>(row.data)[i * row.stride]);
    else if (row.element == BFLOAT16)
        for (int64_t i = 0; i < count; ++i) out[i] = widen_bfloat16(static_cast<const uint16_t*>(row.data)[i * row.stride]);
    else
        for (int64_t i = 0; i < count; ++i) out[i] = widen_float16(static_cast<const uint16_t*>(row.data)[i * row.stride]);
}

template <class T>
LEAF void write(Row row, int64_t count, const T* __restrict in) {
    if (row.element == FLOAT32)
        for (int64_t i = 0; i < count; ++i) static_cast<float*>(row.data)[i * row.stride] = float(in[i]);
    else if (row.element == FLOAT64)
        for (int64_t i = 0; i < count; ++i) static_cast<double*>(row.data)[i * row.stride] = double(in[i]);
    else if (row.element == BFLOAT16)
        for (int64_t i = 0; i < count; ++i) static_cast<uint16_t*>(row.data)[i * row.stride] = narrow_bfloat16(float(in[i]));
    else
        for (int64_t i = 0; i < count; ++i) static_cast<uint16_t*>(row.data)[i * row.stride] = narrow_float16(float(in[i]));
}

// Labels, -1 where they do not count.
LEAF inline void read_labels(const int64_t* __restrict target, const uint8_t* __restrict valid, int64_t count,
                             int32_t* __restrict label) {
    for (int64_t i = 0; i < count; ++i) label[i] = valid[i] ? int32_t(target[i]) : -1;
}

// Weights, 1 where pixels count, else 0.
template <class T>
LEAF void read_weights(const uint8_t* __restrict valid, int64_t count, T* __restrict weight) {
    for (int64_t i = 0; i < count; ++i) weight[i] = T(valid[i] != 0);
}

// Values at low + weight, between those at low and high.
template <class T>
LEAF void interpolate(const T* __restrict from, const int32_t* __restrict low, const int32_t* __restrict high,
                      const T* __restrict weight, int64_t count, T* __restrict out) {
    for (int64_t x = 0; x < count; ++x) out[x] = (1 - weight[x]) * from[low[x]] + weight[x] * from[high[x]];
}

template <class T>
LEAF void blend(const T* __restrict a, T a_weight, const T* __restrict b, T b_weight, int64_t count, T* __restrict out) {
    for (int64_t x = 0; x < count; ++x) out[x] = a_weight * a[x] + b_weight * b[x];
}

template <class T>
LEAF void add_scaled(const T* __restrict from, T scale, int64_t count, T* __restrict to) {
    for (int64_t x = 0; x < count; ++x) to[x] += scale * from[x];
}

template <class T>
LEAF void take_maximum(const T* __restrict from, int64_t count, T* __restrict to) {
    for (int64_t x = 0; x < count; ++x) to[x] = from[x] > to[x] ? from[x] : to[x];
}

// The largest values so far, and the number of the row where each was.
template <class T>
LEAF void take_larger(const T* __restrict from, T number, int64_t count, T* __restrict largest, T* __restrict best) {
    for (int64_t x = 0; x < count; ++x) {
        const bool larger = from[x] > largest[x];
        best[x] = larger ? number : best[x];
        largest[x] = larger ? from[x] : largest[x];
    }
}

// A value where it counts, and 0 where it does not, be it infinite or no number. It is read in any case: machines that cannot
// leave out single numbers of a vector would go one by one otherwise.
INLINE float counted(float value, float weight) { return bits<float>(bits<uint32_t>(value) & -uint32_t(weight != 0)); }
INLINE double counted(double value, double weight) { return bits<double>(bits<uint64_t>(value) & -uint64_t(weight != 0)); }

// Softmax: the sum of e^(logit - peak).
template <class T>
LEAF void add_exponentials(const T* __restrict logit, const T* __restrict peak, int64_t count, T* __restrict total) {
    for (int64_t x = 0; x < count; ++x) total[x] += exp_negative(logit[x] - peak[x]);
}

// The same where nothing counts: of a single logit, 0.
template <class T>
LEAF void silence(const T* __restrict weight, int64_t count, T* __restrict peak, T* __restrict total) {
    for (int64_t x = 0; x < count; ++x) {
        peak[x] = weight[x] != 0 ? peak[x] : T(0);
        total[x] = weight[x] != 0 ? total[x] : T(1);
    }
}

// What is true of a class, where it counts, times its weight.
template <class T>
LEAF void add_truth(const T* __restrict soft, const T* __restrict weight, T class_weight, int64_t count,
                    T* __restrict to) {
    for (int64_t x = 0; x < count; ++x) to[x] += class_weight * counted(soft[x], weight[x]);
}

template <class T>
LEAF void add_logarithm(const T* __restrict from, int64_t count, T* __restrict to) {
    for (int64_t x = 0; x < count; ++x) to[x] += log_above_one(from[x]);
}

template <class T>
LEAF double weighted_sum(const T* __restrict value, const T* __restrict weight, int64_t count) {
    double partial[8] = {};  // independent sums, which can be taken at the same time
    int64_t x = 0;
    for (; x + 8 <= count; x += 8)
        for (int64_t i = 0; i < 8; ++i) partial[i] += double(value[x + i] * weight[x + i]);
    for (; x < count; ++x) partial[0] += double(value[x] * weight[x]);
    double total = 0;
    for (double sum : partial) total += sum;
    return total;
}

// Sums of windows of `size` side by side.
template <int64_t SIZE, class T>
INLINE void sum_windows_of(const T* __restrict from, int64_t count, T* __restrict out) {
    for (int64_t k = 0; k < count; ++k) {
        T sum = 0;
        for (int64_t i = 0; i < SIZE; ++i) sum += from[k * SIZE + i];
        out[k] = sum;
    }
}
template <class T>
LEAF void sum_windows(const T* __restrict from, int64_t size, int64_t count, T* __restrict out) {
    switch (size) {
        case 1: return sum_windows_of<1>(from, count, out);
        case 2: return sum_windows_of<2>(from, count, out);
        case 3: return sum_windows_of<3>(from, count, out);
        case 4: return sum_windows_of<4>(from, count, out);
        case 8: return sum_windows_of<8>(from, count, out);
    }
    for (int64_t k = 0; k < count; ++k) {
        out[k] = 0;
        for (int64_t i = 0; i < size; ++i) out[k] += from[k * size + i];
    }
}

// The other way: every value `size` times, scaled.
template <int64_t SIZE, class T>
INLINE void spread_windows_of(const T* __restrict from, T scale, int64_t count, T* __restrict out) {
    for (int64_t k = 0; k < count; ++k)
        for (int64_t i = 0; i < SIZE; ++i) out[k * SIZE + i] = scale * from[k];
}
template <class T>
LEAF void spread_windows(const T* __restrict from, T scale, int64_t size, int64_t count, T* __restrict out) {
    switch (size) {
        case 1: return spread_windows_of<1>(from, scale, count, out);
        case 2: return spread_windows_of<2>(from, scale, count, out);
        case 3: return spread_windows_of<3>(from, scale, count, out);
        case 4: return spread_windows_of<4>(from, scale, count, out);
        case 8: return spread_windows_of<8>(from, scale, count, out);
    }
    for (int64_t k = 0; k < count; ++k)
        for (int64_t i = 0; i < size; ++i) out[k * size + i] = scale * from[k];
}

template <class T>
LEAF void scale_and_add(T scale, T offset, int64_t count, T* __restrict values) {
    for (int64_t x = 0; x < count; ++x) values[x] = values[x] * scale + offset;
}

// What a row of pixels has of class c: 1 where it is the label, or a probability.
template <class T>
struct Truth {
    const int32_t* label;
    int32_t c;
    const T* soft;
};

// One class: adds to the pixel loss (of BCE also factors of `product`, whose logarithm is still to be added), and sets
// the probabilities, if there are regions to look at, and what is true of soft targets. Their CE takes `peak` and the
// logarithm of the softmax's sum, in the place of `product`.
template <class T, bool IS_CE, bool HAS_REGIONS, bool IS_SOFT>
LEAF void forward_row(const T* __restrict logit, Truth<T> truth, const T* __restrict weight, T class_weight, int64_t count,
                      const T* __restrict peak, T* __restrict pixel, T* __restrict product, T* __restrict probability,
                      T* __restrict soft_out) {
    const int32_t *const __restrict label = truth.label, c = truth.c;
    const T* const __restrict soft = truth.soft;
    for (int64_t x = 0; x < count; ++x) {
        const T value = counted(logit[x], weight[x]), share = IS_SOFT ? counted(soft[x], weight[x]) : T(0);
        const T own = IS_SOFT ? share * value : label[x] == c ? value : T(0);
        if (IS_SOFT && HAS_REGIONS) soft_out[x] = share;
        if (IS_SOFT && IS_CE)
            pixel[x] += share * class_weight * (peak[x] - value + product[x]);
        else
            pixel[x] += (IS_CE || value < 0 ? T(0) : value) - own;
        if (IS_CE && !HAS_REGIONS) continue;
        // sigmoid; and softplus(value) = max(value, 0) + log(1 + e)
        const T e = exp_negative(-std::fabs(value));
        if (!IS_CE) product[x] *= 1 + e;
        if (HAS_REGIONS) {
            const T p = (value < 0 ? e : T(1)) / (1 + e) * weight[x];
            probability[x] = IS_CE && p < T(OFFSET) ? T(OFFSET) : p;
        }
    }
}

enum Probability { SIGMOID, SOFTMAX, WEIGHTED_SOFTMAX };  // of the pixel loss

// One class: the gradient in the logits, from that of the pixel loss and those in the probabilities. Of soft targets
// `pixel_weight` is the sum of what is true of all classes, times their weights.
template <class T, Probability PROBABILITY, bool HAS_REGIONS, bool IS_SOFT>
LEAF void backward_row(const T* __restrict logit, Truth<T> truth, const T* __restrict weight, T class_weight, int64_t count,
                       const T* __restrict peak, const T* __restrict total, const T* __restrict pixel_weight,
                       T grad_pixel, const T* __restrict grad_probability, T* __restrict out) {
    constexpr bool IS_CE = PROBABILITY != SIGMOID;
    const int32_t *const __restrict label = truth.label, c = truth.c;
    const T* const __restrict soft = truth.soft;
    for (int64_t x = 0; x < count; ++x) {
        const T value = counted(logit[x], weight[x]), own = IS_SOFT ? counted(soft[x], weight[x]) : T(0);
        T gradient = 0, p = 0, q = 0;
        if (!IS_CE || HAS_REGIONS) {
            const T e = exp_negative(-std::fabs(value)), larger = 1 / (1 + e);
            p = (value < 0 ? e : T(1)) * larger;
            q = (value < 0 ? T(1) : e) * larger;  // 1 - p, which keeps its digits where it is small
        }
        if (HAS_REGIONS) {
            gradient = grad_probability[x] * p * q;
            if (IS_CE && p < T(OFFSET)) gradient = 0;  // clamped
        }
        if (IS_CE) {
            const T share = exp_negative(value - peak[x]) / total[x];
            if (IS_SOFT) {
                gradient += grad_pixel * (share * pixel_weight[x] - own * class_weight);
            } else {
                const T direct = grad_pixel * (label[x] == c ? share - 1 : share);
                gradient += PROBABILITY == WEIGHTED_SOFTMAX ? direct * pixel_weight[x] : direct;
            }
        } else if (IS_SOFT) {
            gradient += grad_pixel * ((1 - own) * p - own * q);
        } else {
            gradient += grad_pixel * (label[x] == c ? -q : p);
        }
        out[x] = gradient * weight[x];
    }
}
