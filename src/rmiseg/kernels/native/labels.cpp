// Labels, read in one pass: which pixels count, how many, and whether any label is neither of a class nor ignored.

#include <algorithm>
#include <vector>

#include "common.h"
#include "interface.h"

namespace {

constexpr int64_t BLOCK = 1 << 14;  // pixels of a task
enum Kind : uint8_t { IGNORED, CLASS, UNKNOWN };

struct Tally {
    int64_t count;
    bool unknown;
};

LEAF Tally read(const int64_t* __restrict target, int64_t count, const Labels& l, uint8_t* __restrict kind) {
    const uint64_t classes = l.classes;
    for (int64_t i = 0; i < count; ++i) kind[i] = uint64_t(target[i]) < classes ? CLASS : UNKNOWN;
    for (int64_t k = 0; k < l.ignored_count; ++k) {
        const int64_t ignored = l.ignored[k];
        for (int64_t i = 0; i < count; ++i) kind[i] = target[i] == ignored ? IGNORED : kind[i];
    }
    int64_t counted = 0, all = 0;
    for (int64_t i = 0; i < count; ++i) {
        all |= kind[i];
        kind[i] &= 1;
        counted += kind[i];
    }
    return {counted, (all & UNKNOWN) != 0};
}

}  // namespace

extern "C" {

int64_t rmiseg_labels_size() { return sizeof(Labels); }

void rmiseg_read_labels(const Labels* l) {
    const int64_t blocks = (l->pixels + BLOCK - 1) / BLOCK;
    std::vector<Tally> tallies(l->samples * blocks);
    for_each_task(l->samples * blocks, l->threads, [&](int64_t task, Scratch&) {
        const int64_t begin = task % blocks * BLOCK, at = task / blocks * l->pixels + begin;
        tallies[task] = read(l->target + at, std::min(BLOCK, l->pixels - begin), *l, l->valid + at);
    });
    for (int64_t n = 0; n < l->samples; ++n) {
        l->counts[n] = l->unknown[n] = 0;
        for (int64_t block = 0; block < blocks; ++block) {
            l->counts[n] += tallies[n * blocks + block].count;
            l->unknown[n] |= tallies[n * blocks + block].unknown;
        }
    }
}
}
