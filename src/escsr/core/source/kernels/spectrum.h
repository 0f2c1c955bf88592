// The large kernel in the frequency domain: overlapping tiles of 32x32 pixels, overlap-save (see SpectrumTask).
//
// Every number of a transform is a vector of channels, so nothing is ever shuffled. The kernel is real, so two tiles
// go through one complex transform, one as its imaginary part. The forward transform leaves frequencies in an order
// of its own, which the inverse takes; nothing in between depends on it.
#pragma once
#include "maps.h"

namespace escsr {
namespace ESCSR_LEVEL {
namespace spectrum {

constexpr int SIDE = 32;
constexpr int STEP = SIDE + 1;  // of rows, in vectors: a power of two would put columns on one cache line
constexpr int PLANE = SIDE * STEP;
constexpr int MOST_PLACES = 4;  // of one class, at a time

struct Complex {
    Vec re, im;
};
static inline Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
static inline Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
static inline Complex times_minus_i(Complex a) { return {a.im, -a.re}; }

// cos and -sin of 2 pi k / 32.
constexpr float COSINE[SIDE] = {
    1.0f, 0.98078528f, 0.923879533f, 0.831469612f, 0.707106781f, 0.555570233f, 0.382683432f, 0.195090322f,
    0.0f, -0.195090322f, -0.382683432f, -0.555570233f, -0.707106781f, -0.831469612f, -0.923879533f, -0.98078528f,
    -1.0f, -0.98078528f, -0.923879533f, -0.831469612f, -0.707106781f, -0.555570233f, -0.382683432f, -0.195090322f,
    0.0f, 0.195090322f, 0.382683432f, 0.555570233f, 0.707106781f, 0.831469612f, 0.923879533f, 0.98078528f,
};
constexpr float MINUS_SINE[SIDE] = {
    0.0f, -0.195090322f, -0.382683432f, -0.555570233f, -0.707106781f, -0.831469612f, -0.923879533f, -0.98078528f,
    -1.0f, -0.98078528f, -0.923879533f, -0.831469612f, -0.707106781f, -0.555570233f, -0.382683432f, -0.195090322f,
    0.0f, 0.195090322f, 0.382683432f, 0.555570233f, 0.707106781f, 0.831469612f, 0.923879533f, 0.98078528f,
    1.0f, 0.98078528f, 0.923879533f, 0.831469612f, 0.707106781f, 0.555570233f, 0.382683432f, 0.195090322f,
};

static inline Complex turned(Complex a, int k) {
    const float c = COSINE[k], s = MINUS_SINE[k];
    return {a.re * c - a.im * s, a.re * s + a.im * c};
}

static inline void transform_4(Complex& a, Complex& b, Complex& c, Complex& d) {
    const Complex s = a + c, t = a - c, u = b + d, v = times_minus_i(b - d);
    a = s + u, b = t + v, c = s - u, d = t - v;
}

// In natural order, from and to registers.
static inline void transform_8(Complex* x) {
    constexpr float HALF = 0.70710678f;  // sqrt(1/2)
    transform_4(x[0], x[2], x[4], x[6]);
    transform_4(x[1], x[3], x[5], x[7]);
    // x[0], x[2], x[4], x[6] are the even part's four results, x[1], x[3], ... the odd part's.
    const Complex o0 = x[1];
    const Complex o1 = {(x[3].re + x[3].im) * HALF, (x[3].im - x[3].re) * HALF};
    const Complex o2 = times_minus_i(x[5]);
    const Complex o3 = {(x[7].im - x[7].re) * HALF, (x[7].re + x[7].im) * -HALF};
    const Complex e0 = x[0], e1 = x[2], e2 = x[4], e3 = x[6];
    x[0] = e0 + o0, x[1] = e1 + o1, x[2] = e2 + o2, x[3] = e3 + o3;
    x[4] = e0 - o0, x[5] = e1 - o1, x[6] = e2 - o2, x[7] = e3 - o3;
}

static inline Complex take(const Vec* re, const Vec* im, int64_t at) { return {re[at], im[at]}; }
static inline void put(Vec* re, Vec* im, int64_t at, Complex value) { re[at] = value.re, im[at] = value.im; }

// 32 numbers, `step` vectors apart; the result at place 8k + m is of frequency 4m + k.
static inline void transform_32(Vec* re, Vec* im, int64_t step) {
    for (int n = 0; n < 8; ++n) {
        Complex a = take(re, im, n * step), b = take(re, im, (n + 8) * step), c = take(re, im, (n + 16) * step),
                d = take(re, im, (n + 24) * step);
        transform_4(a, b, c, d);
        put(re, im, n * step, a);
        put(re, im, (n + 8) * step, turned(b, n));
        put(re, im, (n + 16) * step, turned(c, 2 * n));
        put(re, im, (n + 24) * step, turned(d, 3 * n));
    }
    for (int k = 0; k < 4; ++k) {
        Complex x[8];
        for (int m = 0; m < 8; ++m) x[m] = take(re, im, (8 * k + m) * step);
        transform_8(x);
        for (int m = 0; m < 8; ++m) put(re, im, (8 * k + m) * step, x[m]);
    }
}

// The transform back of what transform_32 leaves, to natural order, times 32. Real and imaginary parts
// exchanged are the inverse, so the caller's are exchanged here.
static inline void transform_32_back(Vec* im, Vec* re, int64_t step) {
    for (int k = 0; k < 4; ++k) {
        Complex x[8];
        for (int m = 0; m < 8; ++m) x[m] = take(re, im, (8 * k + m) * step);
        transform_8(x);
        for (int n = 0; n < 8; ++n) put(re, im, (8 * k + n) * step, turned(x[n], k * n));
    }
    for (int n = 0; n < 8; ++n) {
        Complex a = take(re, im, n * step), b = take(re, im, (n + 8) * step), c = take(re, im, (n + 16) * step),
                d = take(re, im, (n + 24) * step);
        transform_4(a, b, c, d);
        put(re, im, n * step, a), put(re, im, (n + 8) * step, b);
        put(re, im, (n + 16) * step, c), put(re, im, (n + 24) * step, d);
    }
}

class TilePair {
   public:
    TilePair(const SpectrumTask& task, float* scratch)
        : task_(task), channels_(task.features.channels), groups_(channels_ / LANES), margin_(task.kernel_size / 2),
          inner_(SIDE - task.kernel_size + 1), memory_(reinterpret_cast<Vec*>(scratch)) {}

    // Planes of real and imaginary parts of each group of channels, and one place's results.
    static int64_t floats(const SpectrumTask& task) {
        return 2 * PLANE * task.features.channels + 2 * MOST_PLACES * task.features.channels;
    }

    // Tiles whose inner parts begin at (top, left) and (top, left + inner), as far as `end`.
    void run(int64_t top, int64_t left, const Place& end) {
        end_ = end;
        for (int64_t group = 0; group < groups_; ++group) forward(top, left, group);
        if (task_.dense) multiply_all();
        else multiply_depthwise();
        for (int64_t group = 0; group < groups_; ++group) back(top, left, group);
    }

   private:
    Vec* real(int64_t group) { return memory_ + 2 * group * PLANE; }
    Vec* imag(int64_t group) { return memory_ + (2 * group + 1) * PLANE; }

    void forward(int64_t top, int64_t left, int64_t group) {
        Vec *re = real(group), *im = imag(group);
        for (int row = 0; row < SIDE; ++row) {
            Vec *r = re + row * STEP, *i = im + row * STEP;
            const int64_t y = top + row - margin_;
            if (y < 0 || y >= task_.features.height || y >= end_.bottom + margin_) {
                for (int column = 0; column < SIDE; ++column) r[column] = i[column] = Vec{};
                continue;
            }
            read_row(y, left - margin_, group, r);
            read_row(y, left - margin_ + inner_, group, i);
            transform_32(r, i, 1);
        }
        for (int column = 0; column < SIDE; ++column) transform_32(re + column, im + column, STEP);
    }

    void read_row(int64_t y, int64_t x, int64_t group, Vec* to) {
        const int64_t last = least(task_.features.width, end_.right + margin_) - x;
        for (int64_t column = 0; column < SIDE; ++column)
            to[column] = x + column >= 0 && column < last ? load(task_.features.at(y, x + column) + group * LANES) : Vec{};
    }

    void back(int64_t top, int64_t left, int64_t group) {
        Vec *re = real(group), *im = imag(group);
        const float share = 1.0f / (SIDE * SIDE);
        for (int column = 0; column < SIDE; ++column) transform_32_back(re + column, im + column, STEP);
        for (int64_t row = 0; row < least(inner_, end_.bottom - top); ++row) {
            Vec *r = re + (row + margin_) * STEP, *i = im + (row + margin_) * STEP;
            transform_32_back(r, i, 1);
            write_row(top + row, left, group, r, share);
            write_row(top + row, left + inner_, group, i, share);
        }
    }

    void write_row(int64_t y, int64_t x, int64_t group, const Vec* from, float share) {
        const int64_t count = least(inner_, end_.right - x);
        if (count <= 0) return;
        float* to = task_.result.at(y, x) + group * LANES;
        for (int64_t column = 0; column < count; ++column) store(to + column * channels_, from[column + margin_] * share);
    }

    // Places of one class share a matrix, which is read once for several of them.
    void multiply_all() {
        for (int64_t one = 0; one < task_.num_classes; ++one) {
            const float* matrix = task_.dense + one * channels_ * channels_;
            const int32_t *place = task_.places + task_.classes[one], *end = task_.places + task_.classes[one + 1];
            for (; place + 4 <= end; place += 4) multiply_places<4>(matrix, place);
            for (; place + 2 <= end; place += 2) multiply_places<2>(matrix, place);
            for (; place < end; ++place) multiply_places<1>(matrix, place);
        }
    }

    template <int COUNT>
    void multiply_places(const float* matrix, const int32_t* places) {
        const int64_t channels = channels_;
        int64_t at[COUNT];
        for (int n = 0; n < COUNT; ++n) at[n] = places[n] / SIDE * STEP + places[n] % SIDE;
        Vec* results = memory_ + 2 * PLANE * groups_;  // (group, place, real and imaginary part)
        for (int64_t out = 0; out < groups_; ++out) {
            Vec r[COUNT], i[COUNT];
            for (int n = 0; n < COUNT; ++n) start(places[n], at[n], out, r[n], i[n]);
            for (int64_t in = 0; in < channels; ++in) {
                const Vec weight = load(matrix + in * channels + out * LANES);
                const float* xr = reinterpret_cast<const float*>(real(in / LANES)) + in % LANES;
                const float* xi = reinterpret_cast<const float*>(imag(in / LANES)) + in % LANES;
#pragma GCC unroll 4
                for (int n = 0; n < COUNT; ++n) {
                    r[n] += weight * xr[at[n] * LANES];
                    i[n] += weight * xi[at[n] * LANES];
                }
            }
            for (int n = 0; n < COUNT; ++n) results[2 * (out * COUNT + n)] = r[n], results[2 * (out * COUNT + n) + 1] = i[n];
        }
        for (int64_t out = 0; out < groups_; ++out)
            for (int n = 0; n < COUNT; ++n) {
                real(out)[at[n]] = results[2 * (out * COUNT + n)];
                imag(out)[at[n]] = results[2 * (out * COUNT + n) + 1];
            }
    }

    // What the depthwise kernel gives, or zero.
    void start(int32_t place, int64_t at, int64_t group, Vec& re, Vec& im) {
        if (!task_.depthwise_real) {
            re = im = Vec{};
            return;
        }
        const Vec dr = load(task_.depthwise_real + place * channels_ + group * LANES);
        const Vec di = load(task_.depthwise_imag + place * channels_ + group * LANES);
        const Vec xr = real(group)[at], xi = imag(group)[at];
        re = dr * xr - di * xi;
        im = dr * xi + di * xr;
    }

    void multiply_depthwise() {
        for (int32_t place = 0; place < SIDE * SIDE; ++place) {
            const int64_t at = place / SIDE * STEP + place % SIDE;
            for (int64_t group = 0; group < groups_; ++group) {
                Vec re, im;
                start(place, at, group, re, im);
                real(group)[at] = re, imag(group)[at] = im;
            }
        }
    }

    const SpectrumTask& task_;
    const int64_t channels_, groups_, margin_, inner_;
    Place end_{};
    Vec* memory_;
};

static int64_t scratch(const SpectrumTask& task) { return TilePair::floats(task); }

static void run(const SpectrumTask& task, int64_t top, int64_t left, Place end, float* scratch) {
    TilePair(task, scratch).run(top, left, end);
}

// See Kernels::dynamic_spectrum.
static void with_dynamic(const float* taps_real, const float* taps_imag, const float* dynamic, const float* base_real,
                         const float* base_imag, int64_t channels, float* real, float* imag) {
    for (int64_t place = 0; place < SIDE * SIDE; ++place)
        for (int64_t c = 0; c < channels; c += LANES) {
            const int64_t at = place * channels + c;
            Vec re = base_real ? load(base_real + at) : Vec{}, im = base_imag ? load(base_imag + at) : Vec{};
            for (int64_t tap = 0; tap < 9; ++tap) {
                const Vec weight = load(dynamic + tap * channels + c);
                re += weight * taps_real[place * 9 + tap];
                im += weight * taps_imag[place * 9 + tap];
            }
            store(real + at, re);
            store(imag + at, im);
        }
}

}  // namespace spectrum
}  // namespace ESCSR_LEVEL
}  // namespace escsr
