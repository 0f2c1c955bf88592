// A layer of a block in one pass over a place (see LayerTask). Of the place only three rows are at work, so that they
// stay in the cache.
#pragma once
#include "maps.h"
#include "multiply.h"

namespace escsr {
namespace ESCSR_LEVEL {
namespace layer {

constexpr int64_t COLUMNS = PIECE_COLUMNS;

class Piece {
   public:
    Piece(const LayerTask& task, const Place& place, float* scratch)
        : task_(task), place_(place), dim_(task.features.channels), expanded_(task.expanded) {
        Cut cut(scratch);
        inputs_ = cut.take(3 * ROW * dim_);
        hidden_ = cut.take(3 * ROW * expanded_);
        normalised_ = cut.take(ROW * dim_);
        mixed_ = cut.take(COLUMNS * expanded_);
        row_sum_ = cut.take(expanded_);
    }

    static int64_t floats(const LayerTask& task) {
        const int64_t dim = task.features.channels, expanded = task.expanded;
        return Cut::size(3 * ROW * dim) + Cut::size(3 * ROW * expanded) + Cut::size(ROW * dim) +
               Cut::size(COLUMNS * expanded) + Cut::size(expanded);
    }

    void run(double* hidden_sum) {
        prepare(place_.top - 1);
        prepare(place_.top);
        for (int64_t row = place_.top; row < place_.bottom; ++row) {
            prepare(row + 1);
            mix(row, hidden_sum ? hidden_sum + (row - place_.top) / SUM_ROWS * expanded_ : nullptr);
            finish(row);
        }
    }

   private:
    static constexpr int64_t ROW = COLUMNS + 2;

    // Where a row lies in its ring; column place.left - 1 comes first.
    float* input(int64_t row) { return inputs_ + (row + 3) % 3 * ROW * dim_; }
    float* hidden(int64_t row) { return hidden_ + (row + 3) % 3 * ROW * expanded_; }

    // x and hidden after its first GELU; beyond the map there are zeros.
    void prepare(int64_t row) {
        const int64_t columns = place_.width() + 2, height = task_.features.height, width = task_.features.width;
        if (row < 0 || row >= height) {
            memset(hidden(row), 0, sizeof(float) * static_cast<size_t>(columns * expanded_));
            return;
        }
        const int64_t first = most<int64_t>(place_.left - 1, 0), last = least(place_.right + 1, width);
        const int64_t skipped = first - (place_.left - 1), count = last - first;
        if (row < place_.bottom) fetch(row + 1, first, count);
        float* x = input(row) + skipped * dim_;
        float* h = hidden(row) + skipped * expanded_;
        complete(x, row, first, count);
        const float* in = x;
        if (task_.normalises) {
            normalise(x, dim_, count, dim_, task_.dim, normalised_, dim_);
            in = normalised_;
        }
        const float* bias = task_.expand_bias;
        const int64_t step = expanded_;
        multiply_between<Weights::panels>(
            in, dim_, count, dim_, task_.expand_weight, expanded_,
            [=](int64_t, int64_t c) ESCSR_INLINED { return load(bias + c); },
            [=](int64_t p, int64_t c, Vec sum) ESCSR_INLINED { store(h + p * step + c, gelu_of(sum)); });
        const size_t bytes = sizeof(float) * static_cast<size_t>(expanded_);
        if (skipped) memset(hidden(row), 0, bytes);
        if (last < place_.right + 1) memset(hidden(row) + (columns - 1) * expanded_, 0, bytes);
    }

    // The next row of what is read from memory; pieces are too narrow for the processor to foresee it.
    void fetch(int64_t row, int64_t first, int64_t count) const {
        if (row >= task_.features.height) return;
        const auto fetch_of = [&](const Map& map) {
            const float* from = map.at(row, first);
            for (int64_t i = 0; i < count * map.channels; i += 16) __builtin_prefetch(from + i, 0, 2);
        };
        fetch_of(task_.features);
        if (!task_.added.is_none()) fetch_of(task_.added);
    }

    void complete(float* x, int64_t row, int64_t first, int64_t count) {
        const float* from = task_.features.at(row, first);
        if (task_.added.is_none()) {
            memcpy(x, from, sizeof(float) * static_cast<size_t>(count * dim_));
            return;
        }
        const float* bias = task_.added_bias;
        const int64_t step = dim_;
        multiply_between<Weights::rows>(
            task_.added.at(row, first), task_.added.channels, count, task_.added.channels, task_.added_weight, dim_,
            [=](int64_t p, int64_t c) ESCSR_INLINED { return load(from + p * step + c) + load(bias + c); },
            [=](int64_t p, int64_t c, Vec sum) ESCSR_INLINED { store(x + p * step + c, sum); });
    }

    void mix(int64_t row, double* hidden_sum) {
        const float* rows[3] = {hidden(row - 1), hidden(row), hidden(row + 1)};
        for (int64_t c = 0; c < expanded_; c += LANES) {
            Vec weight[9], sum = Vec{};
            for (int tap = 0; tap < 9; ++tap) weight[tap] = load(task_.depthwise_weight + tap * expanded_ + c);
            const Vec bias = load(task_.depthwise_bias + c);
            for (int64_t p = 0; p < place_.width(); ++p) {
                Vec value = bias;
#pragma GCC unroll 9
                for (int tap = 0; tap < 9; ++tap)
                    value += weight[tap] * load(rows[tap / 3] + (p + tap % 3) * expanded_ + c);
                value = gelu_of(value) + load(rows[1] + (p + 1) * expanded_ + c);
                store(mixed_ + p * expanded_ + c, value);
                sum += value;
            }
            store(row_sum_ + c, sum);
        }
        if (hidden_sum)
            for (int64_t c = 0; c < expanded_; ++c) hidden_sum[c] += static_cast<double>(row_sum_[c]);
    }

    void finish(int64_t row) {
        const int64_t count = place_.width();
        const float* x = input(row) + dim_;
        const float* bias = task_.last_bias;
        float* result = task_.result.at(row, place_.left);
        const int64_t dim = dim_, sides = task_.side.channels, width = dim + sides;
        float* side = sides ? task_.side.at(row, place_.left) - dim : nullptr;
        const bool has_residual = task_.has_residual;
        multiply_between<Weights::panels>(
            mixed_, expanded_, count, expanded_, task_.last_weight, width,
            [=](int64_t p, int64_t c) ESCSR_INLINED {
                return has_residual && c < dim ? load(x + p * dim + c) + load(bias + c) : load(bias + c);
            },
            [=](int64_t p, int64_t c, Vec sum) ESCSR_INLINED {
                store(c < dim ? result + p * dim + c : side + p * sides + c, sum);
            });
    }

    const LayerTask& task_;
    const Place place_;
    const int64_t dim_, expanded_;
    float *inputs_, *hidden_, *normalised_, *mixed_, *row_sum_;
};

static int64_t scratch(const LayerTask& task) { return Piece::floats(task); }

static void run(const LayerTask& task, Place place, double* hidden_sum, float* scratch) {
    Piece(task, place, scratch).run(hidden_sum);
}

}  // namespace layer
}  // namespace ESCSR_LEVEL
}  // namespace escsr
