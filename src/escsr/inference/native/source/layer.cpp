// A layer of a block in one pass over the map: everything between two convolutions of the large kernel.
//
//   x      = features + added * added_weight + added_bias          (the layer before, completed)
//   hidden = GELU(expand([normalised] x));  hidden = GELU(depthwise3x3(hidden)) + hidden
//   result = [x +] reduce(hidden);          side = side(hidden), or side(normalised result)
//
// The map is cut into pieces; of each only a few rows are at work, so that they stay in the cache.
#include "matrix.h"

struct LayerTask {
    const float* features;  // (H*W, C)
    const float* added;     // (H*W, A); null for none
    const float* added_weight;      // (A, C)
    const float* added_bias;        // (C,)
    const float* expand_weight;     // (C, E)
    const float* expand_bias;       // (E,)
    const float* depthwise_weight;  // (9, E)
    const float* depthwise_bias;    // (E,)
    const float* reduce_weight;     // (E, C)
    const float* reduce_bias;       // (C,)
    const float* side_weight;       // (E, S), or (C, S)
    const float* side_bias;         // (S,)
    float* result;       // (H*W, C)
    float* side;         // (H*W, S); null for none
    double* hidden_sum;  // (E,), of hidden over all pixels; null for none
    int64_t height, width, dim, added_dim, expanded_dim, side_dim, threads;
    int64_t normalises, has_residual, side_is_of_result;
};

namespace {

constexpr int64_t PIECE_COLUMNS = 64;
constexpr int64_t BAND_ROWS = 16;  // pieces are whole bands, so sums over bands do not depend on how it is cut

class Piece {
   public:
    Piece(const LayerTask& task, float* scratch) : task_(task), dim_(task.dim), expanded_(task.expanded_dim) {
        const int64_t columns = PIECE_COLUMNS + 2;
        inputs_ = scratch;
        hidden_ = inputs_ + 3 * columns * dim_;
        normalised_ = hidden_ + 3 * columns * expanded_;
        looked_ = normalised_ + columns * dim_;
        row_sum_ = looked_ + PIECE_COLUMNS * expanded_;
    }

    static size_t floats(const LayerTask& task) {
        const int64_t columns = PIECE_COLUMNS + 2;
        return 4 * columns * task.dim + (3 * columns + PIECE_COLUMNS + 1) * task.expanded_dim + 64;
    }

    // hidden_sum: (bands of this piece, E), added to.
    void run(int64_t top, int64_t bottom, int64_t left, int64_t right, double* hidden_sum) {
        left_ = left, right_ = right;
        prepare(top - 1);
        prepare(top);
        for (int64_t row = top; row < bottom; ++row) {
            prepare(row + 1);
            look(row, hidden_sum ? hidden_sum + (row - top) / BAND_ROWS * expanded_ : nullptr);
            finish(row);
        }
    }

   private:
    // Places of a row in its ring; column left_ - 1 comes first.
    float* input(int64_t row) { return inputs_ + (row + 3) % 3 * (PIECE_COLUMNS + 2) * dim_; }
    float* hidden(int64_t row) { return hidden_ + (row + 3) % 3 * (PIECE_COLUMNS + 2) * expanded_; }

    void prepare(int64_t row) {
        const int64_t columns = right_ - left_ + 2;
        if (row < 0 || row >= task_.height) {
            std::memset(hidden(row), 0, 4 * columns * expanded_);
            return;
        }
        const int64_t first = std::max<int64_t>(left_ - 1, 0), last = std::min(right_ + 1, task_.width);
        const int64_t skipped = first - (left_ - 1), count = last - first, pixel = row * task_.width + first;
        float* x = input(row) + skipped * dim_;
        float* h = hidden(row) + skipped * expanded_;
        complete(x, pixel, count);
        const float* in = x;
        if (task_.normalises) {
            normalise(x, dim_, count, dim_, normalised_, dim_);
            in = normalised_;
        }
        multiply(in, dim_, count, dim_, task_.expand_weight, expanded_, h, expanded_, From::bias, task_.expand_bias);
        for (int64_t i = 0; i < count * expanded_; i += LANES) store(h + i, gelu_of(load(h + i)));
        // Beyond the map there are zeros.
        if (skipped) std::memset(hidden(row), 0, 4 * expanded_);
        if (last < right_ + 1) std::memset(hidden(row) + (columns - 1) * expanded_, 0, 4 * expanded_);
    }

    void complete(float* x, int64_t pixel, int64_t count) {
        const float* from = task_.features + pixel * dim_;
        if (!task_.added) {
            std::memcpy(x, from, 4 * count * dim_);
            return;
        }
        for (int64_t p = 0; p < count; ++p)
            for (int64_t c = 0; c < dim_; c += LANES)
                store(x + p * dim_ + c, load(from + p * dim_ + c) + load(task_.added_bias + c));
        multiply(task_.added + pixel * task_.added_dim, task_.added_dim, count, task_.added_dim, task_.added_weight,
                 dim_, x, dim_, From::result);
    }

    void look(int64_t row, double* hidden_sum) {
        const float* rows[3] = {hidden(row - 1), hidden(row), hidden(row + 1)};
        for (int64_t c = 0; c < expanded_; c += LANES) {
            Vec weight[9], sum = Vec{};
            for (int tap = 0; tap < 9; ++tap) weight[tap] = load(task_.depthwise_weight + tap * expanded_ + c);
            const Vec bias = load(task_.depthwise_bias + c);
            for (int64_t p = 0; p < right_ - left_; ++p) {
                Vec value = bias;
#pragma GCC unroll 9
                for (int tap = 0; tap < 9; ++tap)
                    value += weight[tap] * load(rows[tap / 3] + (p + tap % 3) * expanded_ + c);
                value = gelu_of(value) + load(rows[1] + (p + 1) * expanded_ + c);
                store(looked_ + p * expanded_ + c, value);
                sum += value;
            }
            store(row_sum_ + c, sum);
        }
        if (hidden_sum)
            for (int64_t c = 0; c < expanded_; ++c) hidden_sum[c] += row_sum_[c];
    }

    void finish(int64_t row) {
        const int64_t count = right_ - left_, pixel = row * task_.width + left_;
        const float* x = input(row) + dim_;
        float* result = task_.result + pixel * dim_;
        if (task_.has_residual) {
            for (int64_t p = 0; p < count; ++p)
                for (int64_t c = 0; c < dim_; c += LANES)
                    store(result + p * dim_ + c, load(x + p * dim_ + c) + load(task_.reduce_bias + c));
            multiply(looked_, expanded_, count, expanded_, task_.reduce_weight, dim_, result, dim_, From::result);
        } else {
            multiply(looked_, expanded_, count, expanded_, task_.reduce_weight, dim_, result, dim_, From::bias,
                     task_.reduce_bias);
        }
        if (!task_.side) return;
        float* side = task_.side + pixel * task_.side_dim;
        if (task_.side_is_of_result) {
            normalise(result, dim_, count, dim_, normalised_, dim_);
            multiply(normalised_, dim_, count, dim_, task_.side_weight, task_.side_dim, side, task_.side_dim,
                     From::bias, task_.side_bias);
        } else {
            multiply(looked_, expanded_, count, expanded_, task_.side_weight, task_.side_dim, side, task_.side_dim,
                     From::bias, task_.side_bias);
        }
    }

    const LayerTask& task_;
    const int64_t dim_, expanded_;
    int64_t left_ = 0, right_ = 0;
    float *inputs_, *hidden_, *normalised_, *looked_, *row_sum_;
};

}  // namespace

extern "C" int escsr_run_layer(const LayerTask* task) {
    return guarded([&] {
        const int64_t threads = std::max<int64_t>(1, task->threads);
        const int64_t columns = (task->width + PIECE_COLUMNS - 1) / PIECE_COLUMNS;
        // Enough pieces to keep all threads busy to the end, each high enough to hide its two extra rows.
        const int64_t wanted = (4 * threads + columns - 1) / columns;
        const int64_t bands = (task->height + BAND_ROWS - 1) / BAND_ROWS;
        const int64_t height = (bands + wanted - 1) / wanted * BAND_ROWS;
        const int64_t rows = (task->height + height - 1) / height;
        std::vector<std::unique_ptr<Scratch>> scratch;
        for (int64_t thread = 0; thread < threads; ++thread)
            scratch.push_back(std::make_unique<Scratch>(Piece::floats(*task)));
        // A sum for each band: what is added up depends neither on the threads nor on which was faster.
        const int64_t width = task->expanded_dim;
        std::vector<double> sums(task->hidden_sum ? bands * columns * width : 0);
        in_threads(rows * columns, threads, [&](int64_t item, int64_t thread) {
            const int64_t top = item / columns * height, left = item % columns * PIECE_COLUMNS;
            Piece piece(*task, scratch[thread]->get());
            piece.run(top, std::min(top + height, task->height), left, std::min(left + PIECE_COLUMNS, task->width),
                      task->hidden_sum ? &sums[(item % columns * bands + top / BAND_ROWS) * width] : nullptr);
        });
        for (size_t i = 0; i < sums.size(); ++i) task->hidden_sum[i % width] += sums[i];
        return DONE;
    });
}

struct NormTask {
    const float* features;      // (H*W, C)
    const float* added;         // (H*W, A); null for none
    const float* added_weight;  // (A, C)
    const float* added_bias;    // (C,)
    const float* weight;        // (C,)
    const float* bias;          // (C,)
    float* result;              // (H*W, C)
    int64_t pixels, dim, added_dim, threads;
};

// result = LayerNorm(features + added * added_weight + added_bias).
extern "C" int escsr_add_and_normalise(const NormTask* task) {
    return guarded([&] {
        constexpr int64_t PIXELS = 256;
        const int64_t dim = task->dim, pieces = (task->pixels + PIXELS - 1) / PIXELS;
        in_threads(pieces, task->threads, [&](int64_t piece, int64_t) {
            const int64_t first = piece * PIXELS, count = std::min(PIXELS, task->pixels - first);
            float* out = task->result + first * dim;
            const float* in = task->features + first * dim;
            for (int64_t i = 0; i < count * dim; i += LANES)
                store(out + i, task->added ? load(in + i) + load(task->added_bias + i % dim) : load(in + i));
            if (task->added)
                multiply(task->added + first * task->added_dim, task->added_dim, count, task->added_dim,
                         task->added_weight, dim, out, dim, From::result);
            normalise(out, dim, count, dim, out, dim);
            for (int64_t i = 0; i < count * dim; i += LANES)
                store(out + i, load(out + i) * load(task->weight + i % dim) + load(task->bias + i % dim));
        });
        return DONE;
    });
}
