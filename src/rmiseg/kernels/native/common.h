// What the compiled kernels share: threads, scratch memory, and leaves, the functions that hold the inner loops. All is compiled
// once for each set of instructions; library.py loads what is best for the machine.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "interface.h"

extern ParallelFor* rmiseg_parallel_for;  // or null

#define LEAF __attribute__((noinline))  // so that __restrict counts
#define INLINE inline __attribute__((always_inline))

// Memory of a thread, used again and again: `take` gives arrays, and `release` takes back all since a mark.
class Scratch {
  public:
    struct Mark {
        size_t chunk = 0, used = 0;
    };
    Mark mark() const { return place; }
    void release(Mark mark) { place = mark; }

    template <class T>
    T* take(int64_t count) {
        const size_t bytes = (count * sizeof(T) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        for (; place.chunk < chunks.size() && place.used + bytes > chunks[place.chunk].bytes; ++place.chunk) place.used = 0;
        if (place.chunk == chunks.size()) chunks.emplace_back(std::max(bytes, LEAST));
        char* const start = chunks[place.chunk].data.get() + place.used;
        place.used += bytes;
        return reinterpret_cast<T*>(start);
    }

  private:
    static constexpr size_t ALIGNMENT = 64, LEAST = 1 << 16;
    struct Free {
        void operator()(char* data) const { operator delete[](data, std::align_val_t(ALIGNMENT)); }
    };
    struct Chunk {
        size_t bytes;
        std::unique_ptr<char, Free> data;
        explicit Chunk(size_t bytes)
            : bytes(bytes), data(static_cast<char*>(operator new[](bytes, std::align_val_t(ALIGNMENT)))) {}
    };
    std::vector<Chunk> chunks;
    Mark place;
};

// Calls run(task, scratch) for every task, on several threads. What a task computes must not depend on the others.
template <class Run>
void for_each_task(int64_t tasks, int64_t threads, Run run) {
    std::atomic<int64_t> next{0};
    auto work = [&] {
        Scratch scratch;
        for (int64_t task; (task = next.fetch_add(1)) < tasks; scratch.release({})) run(task, scratch);
    };
    using Work = decltype(work);
    const int64_t workers = std::min(threads, tasks);
    if (workers > 1 && rmiseg_parallel_for)
        rmiseg_parallel_for(0, workers, 1, [](int64_t, int64_t, void* work) { (*static_cast<Work*>(work))(); }, &work);
    work();  // what is left if there were no threads to be had
}
