// Class ids or probabilities of the classes, read in one pass: which pixels count, how many, and whether anything is neither
// of a class nor ignored.

#include <algorithm>
#include <vector>

#include "common.h"
#include "interface.h"
#include "rows.h"

namespace {

constexpr int64_t BLOCK = 1 << 14;  // pixels of a task
enum Kind : uint8_t { IGNORED = 0, COUNTED = 1, UNKNOWN = 2 };

struct Tally {
    int64_t count;
    bool unknown;
};

// Turns kinds into what is valid.
LEAF Tally finish(uint8_t* __restrict kind, int64_t count) {
    int64_t counted = 0, all = 0;
    for (int64_t i = 0; i < count; ++i) {
        all |= kind[i];
        kind[i] &= COUNTED;
        counted += kind[i];
    }
    return {counted, (all & UNKNOWN) != 0};
}

template <class Element>
LEAF void widen(const Element* __restrict from, int64_t count, int64_t* __restrict to) {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

LEAF void kinds_of_ids(const int64_t* __restrict ids, int64_t count, const Labels& l, uint8_t* __restrict kind) {
    const uint64_t known = l.is_mask ? 2 : l.classes;
    for (int64_t i = 0; i < count; ++i) kind[i] = uint64_t(ids[i]) < known ? COUNTED : UNKNOWN;
    for (int64_t k = 0; k < l.ignored_count; ++k) {
        const int64_t ignored = l.ignored[k];
        for (int64_t i = 0; i < count; ++i) kind[i] = ids[i] == ignored ? IGNORED : kind[i];
    }
}

LEAF void soften(const int64_t* __restrict ids, int64_t count, float* __restrict soft) {
    for (int64_t i = 0; i < count; ++i) soft[i] = ids[i] == 1 ? 1.0f : 0.0f;
}

void read_ids(const Labels& l, int64_t at, int64_t count, Scratch& scratch) {
    int64_t* const to = l.ids ? l.ids + at : l.element == INT64 ? nullptr : scratch.take<int64_t>(count);
    switch (l.element) {
        case INT32: widen(static_cast<const int32_t*>(l.target) + at, count, to); break;
        case INT16: widen(static_cast<const int16_t*>(l.target) + at, count, to); break;
        case INT8: widen(static_cast<const int8_t*>(l.target) + at, count, to); break;
        case UINT8: widen(static_cast<const uint8_t*>(l.target) + at, count, to); break;
        default: if (to) widen(static_cast<const int64_t*>(l.target) + at, count, to);
    }
    const int64_t* const ids = to ? to : static_cast<const int64_t*>(l.target) + at;
    kinds_of_ids(ids, count, l, l.valid + at);
    if (l.is_mask) soften(ids, count, l.soft + at);
}

// One class: what is ignored in any, or wrong in any, is so at all. Both at once is ignored.
template <class T>
LEAF void kinds_of_soft(const T* __restrict value, int64_t count, const Labels& l, uint8_t* __restrict ignored,
                        uint8_t* __restrict wrong) {
    for (int64_t i = 0; i < count; ++i) wrong[i] |= !(value[i] >= 0 && value[i] <= 1);  // what is not a number too
    for (int64_t k = 0; k < l.ignored_count; ++k) {
        const T label = T(l.ignored[k]);
        for (int64_t i = 0; i < count; ++i) ignored[i] |= value[i] == label;
    }
}

LEAF void kinds_of(const uint8_t* __restrict ignored, const uint8_t* __restrict wrong, int64_t count,
                   uint8_t* __restrict kind) {
    for (int64_t i = 0; i < count; ++i) kind[i] = ignored[i] ? IGNORED : wrong[i] ? UNKNOWN : COUNTED;
}

template <class T>
void read_soft(const Labels& l, int64_t n, int64_t begin, int64_t count, Scratch& scratch) {
    uint8_t *const ignored = scratch.take<uint8_t>(count), *const wrong = scratch.take<uint8_t>(count);
    T* const buffer = scratch.take<T>(count);
    std::fill(ignored, ignored + count, uint8_t(0));
    std::fill(wrong, wrong + count, uint8_t(0));
    const int64_t bytes = l.element == FLOAT64 ? 8 : l.element == FLOAT32 ? 4 : 2;
    for (int64_t c = 0; c < l.classes; ++c) {
        const char* const from = static_cast<const char*>(l.target) + ((n * l.classes + c) * l.pixels + begin) * bytes;
        const Row row = {const_cast<char*>(from), l.element, 1};
        const bool direct = row.template is_contiguous<T>();
        if (!direct) read(row, count, buffer);
        kinds_of_soft(direct ? reinterpret_cast<const T*>(from) : buffer, count, l, ignored, wrong);
    }
    kinds_of(ignored, wrong, count, l.valid + n * l.pixels + begin);
}

}  // namespace

extern "C" {

int64_t rmiseg_labels_size() { return sizeof(Labels); }

void rmiseg_read_labels(const Labels* l) {
    const int64_t blocks = (l->pixels + BLOCK - 1) / BLOCK;
    std::vector<Tally> tallies(l->samples * blocks);
    for_each_task(l->samples * blocks, l->threads, [&](int64_t task, Scratch& scratch) {
        const int64_t n = task / blocks, begin = task % blocks * BLOCK, at = n * l->pixels + begin;
        const int64_t count = std::min(BLOCK, l->pixels - begin);
        if (!l->is_soft)
            read_ids(*l, at, count, scratch);
        else if (l->element == FLOAT64)
            read_soft<double>(*l, n, begin, count, scratch);
        else
            read_soft<float>(*l, n, begin, count, scratch);
        tallies[task] = finish(l->valid + at, count);
    });
    for (int64_t n = 0; n < l->samples; ++n) {
        int64_t count = 0;
        l->unknown[n] = 0;
        for (int64_t block = 0; block < blocks; ++block) {
            count += tallies[n * blocks + block].count;
            l->unknown[n] |= tallies[n * blocks + block].unknown;
        }
        l->counts[2 * n] = count;
        l->counts[2 * n + 1] = count > 0;
    }
}
}
