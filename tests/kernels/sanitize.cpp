// Calls the compiled kernels with random problems, in memory that ends where its arrays end: under a sanitizer, whatever is
// read or written beside them, is undefined, or is shared between threads without order ends the program.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "../../src/rmiseg/kernels/native/interface.h"

namespace {

std::mt19937 generator(1);

// A thread for each part, in place of PyTorch's, which a sanitizer does not see.
int32_t on_threads(int64_t begin, int64_t end, int64_t, void (*run)(int64_t, int64_t, void*), void* context) {
    std::vector<std::thread> threads;
    for (; begin < end; ++begin) threads.emplace_back(run, begin, begin + 1, context);
    for (std::thread& thread : threads) thread.join();
    return 0;
}

int64_t number(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(generator); }

// Each in an allocation of its own.
struct Memory {
    std::vector<std::unique_ptr<char[]>> arrays;

    template <class T>
    T* array(int64_t count) {
        arrays.emplace_back(new char[count * sizeof(T)]());
        return reinterpret_cast<T*>(arrays.back().get());
    }
    template <class T>
    T* ones(int64_t count) {
        T* const values = array<T>(count);
        for (int64_t i = 0; i < count; ++i) values[i] = 1;
        return values;
    }
};

// Logits of any kind: random numbers, among them large ones, infinities and what is not a number.
void* logits(Memory& memory, int64_t element, int64_t count, bool finite) {
    std::normal_distribution<double> normal(0, 3);
    if (element == FLOAT64) {
        double* const values = memory.array<double>(count);
        for (int64_t i = 0; i < count; ++i) values[i] = normal(generator);
        if (!finite) values[0] = NAN;
        return values;
    }
    if (element == FLOAT32) {
        float* const values = memory.array<float>(count);
        for (int64_t i = 0; i < count; ++i) values[i] = float(normal(generator));
        if (!finite) values[0] = -INFINITY;
        return values;
    }
    uint16_t* const values = memory.array<uint16_t>(count);
    for (int64_t i = 0; i < count; ++i) values[i] = uint16_t(number(0, finite ? 0x3fff : 0xffff));
    return values;
}

int64_t pooled(int64_t side, int64_t pool, int64_t size) {
    return pool == INTERPOLATION ? side / size : (side + 2 * (size / 2) - size) / size + 1;
}

void set_strides(int64_t* strides, int64_t classes, int64_t h, int64_t w, bool channels_last) {
    const int64_t planes[4] = {classes * h * w, h * w, w, 1}, pixels[4] = {classes * h * w, 1, w * classes, classes};
    for (int i = 0; i < 4; ++i) strides[i] = channels_last ? pixels[i] : planes[i];
}

// The same as a whole.
template <class Wide>
void run_loss(Memory& memory, const Problem& p, const Labels& read, int64_t most, Wide wide) {
    Loss l = {};
    l.threads = p.threads, l.samples = p.samples, l.classes = p.classes;
    l.h = p.h, l.w = p.w, l.height = p.height, l.width = p.width;
    l.element = p.element, l.target_element = read.element, l.align_corners = p.align_corners, l.pixel_loss = p.pixel_loss;
    l.pool = p.pool, l.pool_size = p.pool_size, l.ph = p.ph, l.pw = p.pw;
    l.region_size = p.pool == NONE ? 1 : number(1, most), l.from_perfect = number(0, 1), l.is_batch = number(0, 1);
    l.ignored = read.ignored, l.ignored_count = read.ignored_count, l.alpha = 5e-4, l.pixel_share = l.region_share = 0.5;
    std::copy_n(p.logits_strides, 4, l.logits_strides);
    std::copy_n(p.gradient_strides, 4, l.gradient_strides);
    l.logits = p.logits, l.target = read.target, l.gradient = p.gradient;
    l.ids = read.element == INT64 ? nullptr : memory.array<int64_t>(p.samples * p.height * p.width);
    l.valid = memory.array<uint8_t>(p.samples * p.height * p.width);
    l.maps = p.pool == NONE ? nullptr : wide(p.samples * p.classes * p.ph * p.pw);
    l.slopes = wide(2), l.loss = wide(1);
    if (!rmiseg_loss_forward(&l)) return;
    if (l.ids) l.target = l.ids, l.ids = nullptr;
    rmiseg_loss_backward(&l);
}

void run_problem() {
    Memory memory;
    Problem p = {};
    p.threads = number(1, 4), p.samples = number(1, 3), p.classes = number(1, 70);
    p.height = number(1, 50), p.width = number(1, 50);
    const bool small = number(0, 1);
    p.h = small ? number(1, p.height) : p.height, p.w = small ? number(1, p.width) : p.width;
    p.element = number(FLOAT32, FLOAT16), p.align_corners = number(0, 1), p.pixel_loss = number(BCE, CE);
    p.pool = number(NONE, INTERPOLATION), p.pool_size = number(1, 9);
    if (p.pool != NONE) p.ph = pooled(p.height, p.pool, p.pool_size), p.pw = pooled(p.width, p.pool, p.pool_size);
    if (p.pool != NONE && (p.ph < 1 || p.pw < 1)) return;
    const int64_t pixels = p.samples * p.height * p.width, maps = p.samples * p.classes, values = maps * p.ph * p.pw;
    set_strides(p.logits_strides, p.classes, p.h, p.w, number(0, 1));
    set_strides(p.gradient_strides, p.classes, p.h, p.w, number(0, 1));
    const bool is_double = p.element == FLOAT64;
    p.logits = logits(memory, p.element, maps * p.h * p.w, number(0, 3) > 0);

    Labels l = {};
    const int64_t ignored[] = {255, -100};
    l.threads = p.threads, l.samples = p.samples, l.pixels = p.height * p.width, l.classes = p.classes;
    l.ignored = ignored, l.ignored_count = number(0, 2);
    l.valid = memory.array<uint8_t>(pixels), l.unknown = memory.array<uint8_t>(p.samples);
    l.counts = memory.array<int64_t>(2 * p.samples);
    l.is_soft = number(0, 1), l.is_mask = !l.is_soft && number(0, 3) == 0;
    if (l.is_soft) {
        l.element = p.soft_element = number(FLOAT32, FLOAT16);
        p.soft = l.target = logits(memory, l.element, pixels * p.classes, number(0, 1));
    } else if (number(0, 1)) {
        l.element = UINT8;
        uint8_t* const target = memory.array<uint8_t>(pixels);
        for (int64_t i = 0; i < pixels; ++i) target[i] = uint8_t(number(0, 9) ? number(0, p.classes - 1) : 255);
        l.target = target, p.target = l.ids = memory.array<int64_t>(pixels);
        if (l.is_mask) l.soft = memory.array<float>(pixels);
    } else {
        l.element = INT64;
        int64_t* const target = memory.array<int64_t>(pixels);
        for (int64_t i = 0; i < pixels; ++i) target[i] = number(0, 9) ? number(0, p.classes - 1) : 255;
        l.target = p.target = target;
        if (l.is_mask) l.soft = memory.array<float>(pixels);
    }
    rmiseg_read_labels(&l);
    p.valid = l.valid;

    p.class_weights = number(0, 1) ? memory.ones<double>(p.classes) : nullptr;
    const auto wide = [&](int64_t count) -> void* {
        return is_double ? static_cast<void*>(memory.array<double>(count)) : memory.array<float>(count);
    };
    p.pixel_sums = wide(p.samples), p.probabilities = wide(values), p.labels = wide(values);
    rmiseg_forward(&p);
    const bool is_volume = p.samples > 1 && number(0, 1);  // of samples for slices
    const int64_t most = std::min<int64_t>({p.ph, p.pw, is_volume ? p.samples : 7});
    if (p.pool != NONE && most > 0) {
        Regions r = {};
        r.threads = p.threads, r.maps = is_volume ? p.classes : maps, r.depth = is_volume ? p.samples : 1, r.height = p.ph, r.width = p.pw, r.region_size = number(1, most);
        r.is_double = is_double, r.with_gradient = number(0, 3) > 0, r.alpha = 5e-4;
        r.probabilities = p.probabilities, r.labels = p.labels;
        r.rmi = memory.array<double>(maps), r.perfect = number(0, 1) ? memory.array<double>(maps) : nullptr;
        r.present = memory.array<uint8_t>(maps);
        if (number(0, 1)) {
            r.batch = number(0, 1) ? r.maps : is_volume ? 1 : p.classes;
            uint8_t* const counted = memory.array<uint8_t>(r.maps);
            for (int64_t i = 0; i < r.maps; ++i) counted[i] = uint8_t(number(0, 3) > 0);
            r.counted = counted;
        }
        if (!is_volume && number(0, 1)) {
            r.samples = p.samples, r.from_perfect = r.perfect && number(0, 1), r.sums = wide(2 * p.samples);
            r.pixel_sums = p.pixel_sums, r.map_weights = {l.counts + 1, 1, 2, 0};
        }
        rmiseg_regions(&r);
    }
    p.gradient_maps = p.probabilities, p.map_weights = {memory.ones<double>(maps), 0, p.classes, 1};
    p.grad_sums = wide(2 * p.samples), p.grad_strides[0] = 2, p.grad_strides[1] = 1;
    p.gradient = memory.array<char>(maps * p.h * p.w * (is_double ? 8 : p.element == FLOAT32 ? 4 : 2));
    rmiseg_backward(&p);

    if (p.target && !l.is_mask && p.pool != INTERPOLATION && (p.pool == NONE || most > 0)) run_loss(memory, p, l, most, wide);

    p.pool = NONE;
    p.labels = memory.array<uint8_t>(pixels);
    rmiseg_argmax(&p);
}

}  // namespace

int main(int count, char** arguments) {
    const int64_t problems = count > 1 ? std::atoll(arguments[1]) : 200;
    rmiseg_use_threads(on_threads);
    for (int64_t i = 0; i < problems; ++i) run_problem();
    std::printf("%lld problems\n", static_cast<long long>(problems));
    return 0;
}
