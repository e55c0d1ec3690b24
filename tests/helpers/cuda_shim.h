// CUDA on a CPU, as much of it as kernels.cu uses: the threads of a block are coroutines, run one after the other until
// each waits at a barrier or ends. Whatever does not wait where it should reads what others have not written yet, in an
// order of threads that the caller chooses; and a barrier that only some threads reach is an error.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(...)
#define __shared__ static

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

static dim3 threadIdx, blockIdx, blockDim, gridDim;

using std::exp2, std::fma, std::fmax, std::log2, std::min;

namespace shim {

constexpr unsigned WARP_SIZE = 32;
constexpr std::size_t STACK = 1 << 16;

struct Thread {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(STACK);
    bool ended = false;
    int line = 0;       // of the barrier it waits at, 0 for none
    bool warp = false;  // whether that barrier is its warp's
    unsigned shuffles = 0;
};

static std::vector<Thread> threads;
static ucontext_t scheduler;
static unsigned current;
static void (*body)(void*);
static void* closure;
static std::string error;

inline void wait(int line, bool warp) {
    Thread& self = threads[current];
    self.line = line;
    self.warp = warp;
    swapcontext(&self.context, &scheduler);
}

inline void entry() {
    body(closure);
    threads[current].ended = true;
    swapcontext(&threads[current].context, &scheduler);
}

// Lets the waiting threads [from, to) go on if all of them wait at the same barrier; says whether it did.
inline bool release(unsigned from, unsigned to, bool warp) {
    const int line = threads[from].line;
    for (unsigned t = from; t < to; ++t)
        if (threads[t].ended || !line || threads[t].line != line || threads[t].warp != warp) return false;
    for (unsigned t = from; t < to; ++t) threads[t].line = 0;
    return true;
}

// order: 0 forwards, 1 backwards, otherwise a permutation that depends on it.
inline void run_block(unsigned count, int order) {
    if (threads.size() < count) threads.resize(count);
    for (unsigned t = 0; t < count; ++t) {
        Thread& thread = threads[t];
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = thread.stack.data();
        thread.context.uc_stack.ss_size = STACK;
        thread.context.uc_link = nullptr;
        thread.ended = false;
        thread.line = 0;
        thread.shuffles = 0;
        makecontext(&thread.context, entry, 0);
    }
    std::vector<unsigned> turn(count);
    for (unsigned t = 0; t < count; ++t) turn[t] = order == 1 ? count - 1 - t : t;
    if (order > 1) {
        unsigned state = order;
        for (unsigned t = count - 1; t > 0; --t) {
            state = state * 1664525u + 1013904223u;
            std::swap(turn[t], turn[(state >> 8) % (t + 1)]);
        }
    }
    for (;;) {
        bool moved = false, all_ended = true;
        for (unsigned t : turn) {
            Thread& thread = threads[t];
            if (thread.ended || thread.line) continue;
            current = t;
            threadIdx.x = t;
            swapcontext(&scheduler, &thread.context);
            moved = true;
        }
        for (unsigned t = 0; t < count; ++t) all_ended = all_ended && threads[t].ended;
        if (all_ended) return;
        for (unsigned w = 0; w < count; w += WARP_SIZE) moved |= release(w, std::min(w + WARP_SIZE, count), true);
        moved |= release(0, count, false);
        if (!moved) {
            error = "some threads wait at a barrier that others never reach";
            return;
        }
    }
}

template <class T>
T shuffle_xor(unsigned mask, T value, int distance, int line) {
    static T slots[2][1024];  // two, so that a fast thread does not write over what a slow one has yet to read
    if (mask != 0xffffffffu) error = "shuffles are known for whole warps only";
    Thread& self = threads[current];
    const unsigned me = current, parity = self.shuffles++ % 2;
    slots[parity][me] = value;
    wait(line, true);
    return slots[parity][me ^ distance];
}

template <class... Parameters, std::size_t... n>
void call(void (*kernel)(Parameters...), void** values, std::index_sequence<n...>) {
    kernel(*static_cast<std::remove_const_t<Parameters>*>(values[n])...);
}

template <class... Parameters>
void launch(void (*kernel)(Parameters...), const unsigned* grid, unsigned count, void** values, int order) {
    auto thread = [&] { call(kernel, values, std::index_sequence_for<Parameters...>()); };
    body = [](void* given) { (*static_cast<decltype(thread)*>(given))(); };
    closure = &thread;
    error.clear();
    gridDim = {grid[0], grid[1], 1};
    blockDim = {count, 1, 1};
    for (unsigned y = 0; y < grid[1]; ++y)
        for (unsigned x = 0; x < grid[0] && error.empty(); ++x) {
            blockIdx = {x, y, 0};
            run_block(count, order);
        }
}

}  // namespace shim

#define __syncthreads() shim::wait(__LINE__, false)
#define __shfl_xor_sync(mask, value, distance) shim::shuffle_xor(mask, value, distance, __LINE__)
