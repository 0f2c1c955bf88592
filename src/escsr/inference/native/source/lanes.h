// Vectors of float32, and what is computed on them. No intrinsics: the compiler's vector extension
// becomes AVX-512, AVX2 or NEON.
#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#if defined(__AVX512F__)
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif

typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef int32_t IntVec __attribute__((vector_size(4 * LANES)));
typedef float UnalignedVec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline Vec load(const float* from) { return *reinterpret_cast<const UnalignedVec*>(from); }
static inline void store(float* to, Vec value) { *reinterpret_cast<UnalignedVec*>(to) = value; }
static inline Vec all(float value) { return value - Vec{}; }
static inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }

static inline float sum_of(Vec value) {
    float part[LANES];
    store(part, value);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; ++lane) part[lane] += part[lane + half];
    return part[0];
}

// 2^x for x <= 127; below -126 it is 2^-126. Relative error 1e-7.
static inline Vec exp2_of(Vec x) {
    const float to_whole = 12582912.0f;  // 1.5 * 2^23: adding it rounds to whole numbers
    x = larger(x, all(-126.0f));
    const Vec shifted = x + to_whole;
    const Vec f = x - (shifted - to_whole);  // in [-1/2, 1/2]
    Vec p = f * 1.3276428e-3f + 9.675541e-3f;
    p = p * f + 5.5507135e-2f;
    p = p * f + 0.2402212f;
    p = p * f + 0.69314694f;
    p = p * f + 1.0f;
    // The exponent of p grows by the whole number in the low bits of `shifted`.
    return (Vec)((IntVec)p + ((IntVec)shifted << 23));
}

// GELU with the exact erf: max(x, 0) - |x| Phi(-|x|), Phi(-y) = exp(-y^2/2) (a1 t + ... + a5 t^5) / 2,
// t = 1 / (1 + p y / sqrt 2): Abramowitz and Stegun 7.1.26, off by 1.5e-7 at most.
static inline Vec gelu_of(Vec x) {
    const Vec y = x < 0 ? -x : x;
    const Vec t = 1.0f / (1.0f + 0.23164189f * y);
    Vec p = t * 0.5307027f - 0.72657603f;
    p = p * t + 0.71070687f;
    p = p * t - 0.14224837f;
    p = p * t + 0.12741480f;
    const Vec tail = p * t * exp2_of(y * y * -0.72134752f);
    return larger(x, Vec{}) - y * tail;
}

// Memory of one thread, on a cache line.
class Scratch {
   public:
    explicit Scratch(size_t floats)
        : memory_(static_cast<float*>(std::aligned_alloc(64, (4 * floats + 63) / 64 * 64))) {}
    ~Scratch() { std::free(memory_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    float* get() { return memory_; }

   private:
    float* memory_;
};

// Run work(item, thread) for all items; threads take the next one when they are done with one.
template <class Work>
static void in_threads(int items, int threads, Work work) {
    threads = std::max(1, std::min(threads, items));
    std::atomic<int> next{0};
    auto run = [&](int thread) {
        for (int item = next++; item < items; item = next++) work(item, thread);
    };
    std::vector<std::thread> others;
    for (int thread = 1; thread < threads; ++thread) others.emplace_back(run, thread);
    run(0);
    for (auto& other : others) other.join();
}
