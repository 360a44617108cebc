// What the compiled kernels share: threads, scratch memory, and leaves, the functions that hold the inner loops.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

using std::int64_t;

// A leaf is compiled for several instruction sets; the best that the machine has is chosen when the library is loaded.
#if defined(__x86_64__) && defined(__linux__)
#define LEAF __attribute__((noinline, target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LEAF __attribute__((noinline))
#endif
#define INLINE inline __attribute__((always_inline))

// Memory of a thread, used again and again.
class Scratch {
  public:
    // Begins anew, with room for `arrays` arrays of `bytes` together.
    void reserve(int64_t bytes, int64_t arrays) {
        const size_t needed = bytes + (arrays + 1) * ALIGNMENT;
        if (memory.size() < needed) memory.resize(needed);
        free = memory.data();
    }
    template <class T>
    T* take(int64_t count) {
        size_t room = memory.data() + memory.size() - static_cast<char*>(free);
        T* start = static_cast<T*>(std::align(ALIGNMENT, count * sizeof(T), free, room));
        free = start + count;
        return start;
    }

  private:
    static constexpr int64_t ALIGNMENT = 64;
    std::vector<char> memory;
    void* free = nullptr;
};

// Calls run(task, scratch) for every task, on several threads. What a task computes must not depend on the others.
template <class Run>
void for_each_task(int64_t tasks, int64_t threads, Run run) {
    std::atomic<int64_t> next{0};
    auto work = [&] {
        Scratch scratch;
        for (int64_t task; (task = next.fetch_add(1)) < tasks;) run(task, scratch);
    };
    std::vector<std::thread> others;
    for (int64_t i = 1; i < std::min(threads, tasks); ++i) {
        try {
            others.emplace_back(work);
        } catch (const std::system_error&) {
            break;  // no more threads to be had: fewer do the work
        }
    }
    work();
    for (auto& thread : others) thread.join();
}
