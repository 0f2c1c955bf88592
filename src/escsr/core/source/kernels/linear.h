// What is done to each pixel alone (see LinearTask).
#pragma once
#include "maps.h"
#include "multiply.h"

namespace escsr {
namespace ESCSR_LEVEL {
namespace linear {

constexpr int64_t PIXELS = 64;  // at a time

static int64_t scratch(const LinearTask& task) {
    return Cut::size(PIXELS * task.features.channels) + Cut::size(task.result.channels);
}

// features + added * added_weight + added_bias, normalised where that is asked for.
static void prepare(const LinearTask& task, int64_t row, int64_t left, int64_t count, float* x) {
    const int64_t dim = task.features.channels;
    const float* from = task.features.at(row, left);
    if (task.added.is_none()) {
        memcpy(x, from, sizeof(float) * static_cast<size_t>(count * dim));
    } else {
        for (int64_t p = 0; p < count; ++p)
            for (int64_t c = 0; c < dim; c += LANES)
                store(x + p * dim + c, load(from + p * dim + c) + load(task.added_bias + c));
        multiply(task.added.at(row, left), task.added.channels, count, task.added.channels, task.added_weight, dim, x,
                 dim, From::result);
    }
    if (task.normalises) normalise(x, dim, count, dim, task.dim, x, dim);
}

static void finish(const LinearTask& task, int64_t row, int64_t left, int64_t count, const float* x) {
    const int64_t dim = task.features.channels, outs = task.result.channels;
    float* out = task.result.at(row, left);
    const float* residual = task.residual.is_none() ? nullptr : task.residual.at(row, left);
    for (int64_t p = 0; p < count; ++p)
        for (int64_t c = 0; c < outs; c += LANES) {
            Vec value = task.bias ? load(task.bias + c) : Vec{};
            if (residual) value += load(residual + p * outs + c);
            if (!task.weight) value += task.gain ? load(x + p * dim + c) * load(task.gain + c) : load(x + p * dim + c);
            store(out + p * outs + c, value);
        }
    if (task.weight) multiply(x, dim, count, dim, task.weight, outs, out, outs, From::result);
}

static void run(const LinearTask& task, Place place, double* result_sum, float* scratch) {
    Cut cut(scratch);
    float* x = cut.take(PIXELS * task.features.channels);
    float* row_sum = cut.take(task.result.channels);
    const int64_t outs = task.result.channels;
    for (int64_t row = place.top; row < place.bottom; ++row)
        for (int64_t left = place.left; left < place.right; left += PIXELS) {
            const int64_t count = least(PIXELS, place.right - left);
            prepare(task, row, left, count, x);
            finish(task, row, left, count, x);
            if (!result_sum) continue;
            const float* out = task.result.at(row, left);
            for (int64_t c = 0; c < outs; c += LANES) {
                Vec sum = Vec{};
                for (int64_t p = 0; p < count; ++p) sum += load(out + p * outs + c);
                store(row_sum + c, sum);
            }
            for (int64_t c = 0; c < outs; ++c) result_sum[c] += static_cast<double>(row_sum[c]);
        }
}

}  // namespace linear
}  // namespace ESCSR_LEVEL
}  // namespace escsr
