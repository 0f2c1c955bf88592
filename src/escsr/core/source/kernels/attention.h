// Attention of one head within one window, from the feature map to the values that the output projection takes.
//
// Queries fill the lanes: a vector holds neighbouring queries of one row of a window, whose biases for one key lie
// beside each other in the table of relative offsets. Two such vectors are worked on at a time, so that each number
// read of a key or a value serves both. Weights of a few rows of keys are in memory at a time, scores of all pairs and
// an expanded bias never.
//
// Scores are log2(e) * SCORE_UNIT times what softmax takes, so that as whole numbers they are exponent and mantissa of
// a power of two.
#pragma once
#include "../kernels.h"
#include "maps.h"
#include "multiply.h"

namespace escsr {
namespace ESCSR_LEVEL {
namespace attention {

constexpr int VECTORS = 2;                        // of queries at a time
constexpr int QUERIES = VECTORS * LANES;          // likewise
constexpr int KEYS = REGISTERS == 32 ? 8 : 4;     // whose scores are in registers at a time
constexpr int CHANNELS = REGISTERS == 32 ? 8 : 6; // of values whose sums are in registers at a time, at most
constexpr int64_t PIECE = 32;                     // pixels projected at a time
constexpr int64_t FEW_KEYS = 64;                  // about so many weights are kept for each query,
constexpr int64_t MANY_KEYS = 256;                // or so many where their highest score has to be found first

// Scores below this need no highest score subtracted: powers and their sums neither overflow nor lose precision.
constexpr float HIGHEST_PLAIN = 80.0f * SCORE_UNIT;
// Weights that are so much smaller than another are left out: 2^-40 of it.
constexpr float NEGLIGIBLE = -40.0f * SCORE_UNIT;

// 2^(1 + x / SCORE_UNIT) for |x| < 126 * SCORE_UNIT; of NaN anything. Relative error 2.7e-7.
static inline Vec power_of(Vec x) {
    const IntVec fixed = __builtin_convertvector(x, IntVec);
    const Vec m = (Vec)((fixed & 0x7fffff) | 0x3f800000);  // 1 + the fraction
    // 2^(m - 1), nowhere below 1 and everywhere below 2: its exponent's bits, 01111111, are those of 1. Tested for all
    // 2^23 fractions.
    Vec p = m * 1.82365475e-3f + 9.8302753e-6f;
    p = p * m + 3.74237709e-2f;
    p = p * m + 0.109635182f;
    p = p * m + 0.352446944f;
    p = p * m + 0.498660743f;
    // The whole number, biased by 128, takes their place.
    return (Vec)((IntVec)p ^ (~fixed & 0x7f800000));
}

static inline bool any_of(IntVec mask) {
    int32_t part[LANES];
    memcpy(part, &mask, sizeof mask);
    int32_t any = 0;
    for (int lane = 0; lane < LANES; ++lane) any |= part[lane];
    return any != 0;
}

// Scores of a block of keys, (depth, KEYS), for the queries, (depth, QUERIES). Those of key `count` and later are
// zeros. bias: of the first key for each vector of queries; that of the next key lies one float before it.
static inline void score_block(const float* queries, const float* keys, int64_t depth, const float* const* bias,
                               int64_t count, Vec (*score)[VECTORS]) {
#pragma GCC unroll 8
    for (int key = 0; key < KEYS; ++key)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) score[key][v] = key < count ? load(bias[v] - key) : Vec{};
    for (int64_t d = 0; d < depth; ++d) {
        Vec query[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) query[v] = load(queries + d * QUERIES + v * LANES);
#pragma GCC unroll 8
        for (int key = 0; key < KEYS; ++key)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) score[key][v] += keys[d * KEYS + key] * query[v];
    }
}

// total (N, QUERIES) += N channels of `keys` values, weighted by (keys, QUERIES).
template <int N>
static inline void add_channels(const float* weights, const float* values, int64_t value_step, int64_t keys,
                                float* total) {
    Vec sum[N][VECTORS];
#pragma GCC unroll 8
    for (int c = 0; c < N; ++c)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) sum[c][v] = load(total + c * QUERIES + v * LANES);
    for (int64_t key = 0; key < keys; ++key) {
        Vec weight[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) weight[v] = load(weights + key * QUERIES + v * LANES);
#pragma GCC unroll 8
        for (int c = 0; c < N; ++c)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) sum[c][v] += values[key * value_step + c] * weight[v];
    }
#pragma GCC unroll 8
    for (int c = 0; c < N; ++c)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) store(total + c * QUERIES + v * LANES, sum[c][v]);
}

class WindowOfHead {
   public:
    WindowOfHead(const AttentionTask& task, int64_t window_row, int64_t window_column, int64_t head, float* scratch)
        : task_(task), side_(task.window), top_(window_row * side_), left_(window_column * side_), head_(head),
          head_dim_(task.head_dim), depth_(task.head_dim + task.rank), blocks_(divide_up(side_, KEYS)) {
        Cut cut(scratch);
        divide(cut, task);
    }

    static int64_t scratch_floats(const AttentionTask& task) {
        const int64_t side = task.window, depth = task.head_dim + task.rank;
        const int64_t rows = rows_at_once(side, MANY_KEYS);
        return Cut::size(PIECE * task.features.channels) + Cut::size(PIECE * projected_width(task)) +
               2 * Cut::size(side * side * task.head_dim) +
               Cut::size(side * divide_up(side, KEYS) * KEYS * depth) + Cut::size(depth * QUERIES) +
               Cut::size(task.head_dim * QUERIES) + Cut::size(rows * side * QUERIES) +
               Cut::size(rows * divide_up(side, KEYS) * QUERIES) + Cut::size(side + LANES);
    }

    void run() {
        project();
        measure();
        const int64_t rows = least(side_, task_.features.height - top_);
        const int64_t row_vectors = divide_up(least(side_, task_.features.width - left_), LANES);
        for (int64_t first = 0; first < rows * row_vectors; first += VECTORS) {
            int64_t count = 0;
            for (int v = 0; v < VECTORS; ++v) {
                // An odd one is joined by itself.
                const int64_t vector = least(first + v, rows * row_vectors - 1);
                row_[v] = vector / row_vectors, column_[v] = vector % row_vectors * LANES;
                count += first + v == vector;
            }
            attend();
            for (int v = 0; v < count; ++v) put(v);
        }
    }

   private:
    static int64_t projected_width(const AttentionTask& task) { return round_up(3 * task.head_dim, LANES); }
    static int64_t rows_at_once(int64_t side, int64_t keys) { return least(side, most<int64_t>(1, keys / side)); }

    void divide(Cut& cut, const AttentionTask& task) {
        pixels_ = cut.take(PIECE * task.features.channels);
        projected_ = cut.take(PIECE * projected_width(task));
        queries_ = cut.take(side_ * side_ * head_dim_);
        values_ = cut.take(side_ * side_ * head_dim_);
        keys_ = cut.take(side_ * blocks_ * KEYS * depth_);
        query_ = cut.take(depth_ * QUERIES);
        total_ = cut.take(head_dim_ * QUERIES);
        const int64_t rows = rows_at_once(side_, MANY_KEYS);
        weights_ = cut.take(rows * side_ * QUERIES);
        peaks_ = cut.take(rows * blocks_ * QUERIES);
        zeros_ = cut.take(side_ + LANES);
    }

    // Queries, keys and values of all places of the window.
    void project() {
        if (side_ % KEYS)
            for (int64_t row = 0; row < side_; ++row)
                memset(block(row, blocks_ - 1), 0, static_cast<size_t>(KEYS * depth_) * sizeof(float));
        const int64_t channels = task_.features.channels, width = projected_width(task_);
        const float* weight = task_.project_weight + head_ * channels * width;
        for (int64_t row = 0; row < side_; ++row)
            for (int64_t column = 0; column < side_; column += PIECE) {
                const int64_t count = least(PIECE, side_ - column);
                multiply(gather(row, column, count), channels, count, channels, weight, width, projected_, width,
                         From::bias, task_.project_bias + head_ * width);
                for (int64_t i = 0; i < count; ++i) keep(row, column + i, projected_ + i * width);
            }
    }

    // Features of pixels beside each other, normalised where they have to be.
    const float* gather(int64_t row, int64_t column, int64_t count) {
        const Map& map = task_.features;
        const int64_t y = reflected(top_ + row, map.height), left = left_ + column;
        const int64_t inside = most<int64_t>(0, least(count, map.width - left));
        if (!task_.normalises && inside == count) return map.at(y, left);
        if (inside > 0) copy(map.at(y, left), inside, pixels_);
        for (int64_t i = inside; i < count; ++i)
            copy(map.at(y, reflected(left + i, map.width)), 1, pixels_ + i * map.channels);
        return pixels_;
    }

    void copy(const float* from, int64_t pixels, float* to) const {
        const int64_t channels = task_.features.channels;
        if (task_.normalises)
            normalise(from, channels, pixels, channels, task_.dim, to, channels);
        else
            memcpy(to, from, static_cast<size_t>(pixels * channels) * sizeof(float));
    }

    float* block(int64_t row, int64_t number) const { return keys_ + (row * blocks_ + number) * KEYS * depth_; }

    void keep(int64_t row, int64_t column, const float* projected) {
        const int64_t token = row * side_ + column;
        float* key = block(row, column / KEYS) + column % KEYS;
        for (int64_t d = 0; d < head_dim_; ++d) {
            queries_[token * head_dim_ + d] = projected[d];
            key[d * KEYS] = projected[head_dim_ + d];
            values_[token * head_dim_ + d] = projected[2 * head_dim_ + d];
        }
        if (task_.rank == 0) return;
        const float* factors = task_.key_factors + (head_ * side_ * side_ + token) * task_.rank;
        for (int64_t d = 0; d < task_.rank; ++d) key[(head_dim_ + d) * KEYS] = factors[d];
    }

    // How long queries may be that no score exceeds HIGHEST_PLAIN.
    void measure() {
        float longest = 0;
        poison_ = 0;
        for (int64_t i = 0; i < side_ * blocks_; ++i) {
            const float* key = keys_ + i * KEYS * depth_;
            float squares[KEYS] = {};
            for (int64_t d = 0; d < depth_; ++d)
                for (int k = 0; k < KEYS; ++k) squares[k] += key[d * KEYS + k] * key[d * KEYS + k];
            for (int k = 0; k < KEYS; ++k) longest = most(longest, squares[k]), poison_ += 0.0f * squares[k];
        }
        const float room = HIGHEST_PLAIN - largest_bias();
        longest_query_ = room > 0 ? room * room / most(longest, 1e-30f) : -1.0f;
    }

    float largest_bias() {
        memset(zeros_, 0, static_cast<size_t>(side_ + LANES) * sizeof(float));
        if (!task_.bias) return 0;
        const int64_t offsets = 2 * side_ - 1;
        const float* bias = task_.bias + head_ * offsets * task_.bias_step;
        Vec largest = Vec{};
        // Whole vectors: what pads a row is finite, and not small where that matters.
        for (int64_t row = 0; row < offsets; ++row)
            for (int64_t column = 0; column < offsets; column += LANES) {
                const Vec value = load(bias + row * task_.bias_step + column);
                largest = larger(larger(value, -value), largest);
            }
        float part[LANES], highest = 0;
        store(part, largest);
        for (int lane = 0; lane < LANES; ++lane) highest = most(highest, part[lane]);
        return highest;
    }

    void attend() {
        const Vec zero = Vec{};
        bool is_plain = poison_ == 0;
        for (int v = 0; v < VECTORS; ++v) {
            load_queries(v);
            Vec squares = zero;
            for (int64_t d = 0; d < depth_; ++d) {
                const Vec query = load(query_ + d * QUERIES + v * LANES);
                squares += query * query;
            }
            is_plain = is_plain && !any_of(~(squares <= longest_query_));
            // Not a number where the query is not one.
            mass_[v] = squares * 0.0f + poison_;
        }
        memset(total_, 0, static_cast<size_t>(head_dim_ * QUERIES) * sizeof(float));
        if (is_plain)
            attend_plainly();
        else
            attend_carefully();
    }

    // The queries of a vector, transposed; lanes beyond the window's edge have zeros.
    void load_queries(int v) {
        const int64_t lanes = least<int64_t>(LANES, side_ - column_[v]);
        const int64_t token = row_[v] * side_ + column_[v];
        float* to = query_ + v * LANES;
        transpose(queries_ + token * head_dim_, head_dim_, lanes, to);
        if (task_.rank > 0)
            transpose(task_.query_factors + (head_ * side_ * side_ + token) * task_.rank, task_.rank, lanes,
                      to + head_dim_ * QUERIES);
    }

    static void transpose(const float* from, int64_t channels, int64_t lanes, float* to) {
        for (int64_t d = 0; d < channels; ++d) {
            float* row = to + d * QUERIES;
            for (int64_t lane = 0; lane < lanes; ++lane) row[lane] = from[lane * channels + d];
            for (int64_t lane = lanes; lane < LANES; ++lane) row[lane] = 0;
        }
    }

    // The bias of key (row, column) for the queries of a vector; of the keys after it, one float before each other.
    const float* bias(int v, int64_t row, int64_t column) const {
        if (!task_.bias) return zeros_ + side_ - 1 - column;
        const int64_t offsets = 2 * side_ - 1;
        return task_.bias + ((head_ * offsets) + row - row_[v] + side_ - 1) * task_.bias_step + column_[v] - column +
               side_ - 1;
    }

    // No score is too high: weights are powers of the scores as they are.
    void attend_plainly() {
        const int64_t at_once = rows_at_once(side_, FEW_KEYS);
        for (int64_t row = 0; row < side_; row += at_once) {
            const int64_t rows = least(at_once, side_ - row);
            for (int64_t i = 0; i < rows; ++i) weigh_row(row + i, weights_ + i * side_ * QUERIES);
            add_values(weights_, row * side_, rows * side_);
        }
    }

    void weigh_row(int64_t row, float* weights) {
        Vec mass[VECTORS];
        for (int v = 0; v < VECTORS; ++v) mass[v] = mass_[v];
        for (int64_t column = 0; column < side_; column += KEYS) {
            const float* offsets[VECTORS];
            for (int v = 0; v < VECTORS; ++v) offsets[v] = bias(v, row, column);
            const int64_t count = least<int64_t>(KEYS, side_ - column);
            Vec score[KEYS][VECTORS];
            score_block(query_, block(row, column / KEYS), depth_, offsets, count, score);
#pragma GCC unroll 8
            for (int key = 0; key < KEYS; ++key)
                if (key < count)
#pragma GCC unroll 4
                    for (int v = 0; v < VECTORS; ++v) {
                        const Vec weight = power_of(score[key][v]);
                        mass[v] += weight;
                        store(weights + (column + key) * QUERIES + v * LANES, weight);
                    }
        }
        for (int v = 0; v < VECTORS; ++v) mass_[v] = mass[v];
    }

    void add_values(const float* weights, int64_t first, int64_t count) {
        for (int64_t done = 0; done < head_dim_;) {
            // In parts of about the same size.
            const int64_t left = head_dim_ - done, part = divide_up(left, divide_up(left, CHANNELS));
            const float* values = values_ + first * head_dim_ + done;
            float* total = total_ + done * QUERIES;
            switch (part) {
                case 8: add_channels<8>(weights, values, head_dim_, count, total); break;
                case 7: add_channels<7>(weights, values, head_dim_, count, total); break;
                case 6: add_channels<6>(weights, values, head_dim_, count, total); break;
                case 5: add_channels<5>(weights, values, head_dim_, count, total); break;
                case 4: add_channels<4>(weights, values, head_dim_, count, total); break;
                case 3: add_channels<3>(weights, values, head_dim_, count, total); break;
                case 2: add_channels<2>(weights, values, head_dim_, count, total); break;
                default: add_channels<1>(weights, values, head_dim_, count, total); break;
            }
            done += part;
        }
    }

    // Any scores: the highest of many keys is found, and subtracted, before weights are made of them. Where attention
    // is so sharp, most weights are next to nothing; these take no time.
    void attend_carefully() {
        Vec highest[VECTORS];
        for (int v = 0; v < VECTORS; ++v) highest[v] = all(-1e38f);
        const int64_t at_once = rows_at_once(side_, MANY_KEYS);
        for (int64_t row = 0; row < side_; row += at_once) {
            const int64_t rows = least(at_once, side_ - row);
            Vec higher[VECTORS];
            for (int v = 0; v < VECTORS; ++v) higher[v] = highest[v];
            for (int64_t i = 0; i < rows; ++i) score_row(row + i, i, higher);
            for (int v = 0; v < VECTORS; ++v) {
                shrink(v, highest[v] - higher[v]);
                highest[v] = higher[v];
            }
            for (int64_t i = 0; i < rows; ++i) weigh_scores(row + i, i, highest);
        }
    }

    void score_row(int64_t row, int64_t number, Vec* highest) {
        for (int64_t b = 0; b < blocks_; ++b) {
            const float* offsets[VECTORS];
            for (int v = 0; v < VECTORS; ++v) offsets[v] = bias(v, row, b * KEYS);
            const int64_t count = least<int64_t>(KEYS, side_ - b * KEYS);
            Vec score[KEYS][VECTORS], peak[VECTORS];
            score_block(query_, block(row, b), depth_, offsets, count, score);
            float* to = weights_ + (number * side_ + b * KEYS) * QUERIES;
            for (int v = 0; v < VECTORS; ++v) peak[v] = score[0][v];
#pragma GCC unroll 8
            for (int key = 0; key < KEYS; ++key)
                if (key < count)
#pragma GCC unroll 4
                    for (int v = 0; v < VECTORS; ++v) {
                        peak[v] = larger(peak[v], score[key][v]);
                        store(to + key * QUERIES + v * LANES, score[key][v]);
                    }
            for (int v = 0; v < VECTORS; ++v) {
                highest[v] = larger(highest[v], peak[v]);
                store(peaks_ + (number * blocks_ + b) * QUERIES + v * LANES, peak[v]);
            }
        }
    }

    static Vec careful_power_of(Vec x) { return power_of(larger(x, all(-120.0f * SCORE_UNIT))); }

    void shrink(int v, Vec by) {
        const Vec factor = 0.5f * careful_power_of(by);
        mass_[v] *= factor;
        for (int64_t d = 0; d < head_dim_; ++d) {
            float* total = total_ + d * QUERIES + v * LANES;
            store(total, load(total) * factor);
        }
    }

    void weigh_scores(int64_t row, int64_t number, const Vec* highest) {
        float* weights = weights_ + number * side_ * QUERIES;
        int64_t begin = 0;  // of the weights that are made, but whose values are not added yet
        for (int64_t b = 0; b < blocks_; ++b) {
            IntVec mask = IntVec{};
            for (int v = 0; v < VECTORS; ++v)
                mask |= load(peaks_ + (number * blocks_ + b) * QUERIES + v * LANES) - highest[v] > NEGLIGIBLE;
            const int64_t first = b * KEYS, count = least<int64_t>(KEYS, side_ - first);
            if (any_of(mask)) {
                for (int64_t key = first; key < first + count; ++key)
                    for (int v = 0; v < VECTORS; ++v) {
                        float* weight = weights + key * QUERIES + v * LANES;
                        const Vec power = careful_power_of(load(weight) - highest[v]);
                        mass_[v] += power;
                        store(weight, power);
                    }
            } else {
                if (begin < first) add_values(weights + begin * QUERIES, row * side_ + begin, first - begin);
                begin = first + count;
            }
        }
        if (begin < side_) add_values(weights + begin * QUERIES, row * side_ + begin, side_ - begin);
    }

    // The attended values of the pixels of a vector that lie in the map.
    void put(int v) {
        const Map& map = task_.attended;
        const int64_t y = top_ + row_[v], x = left_ + column_[v];
        const int64_t lanes = least(least<int64_t>(LANES, side_ - column_[v]), map.width - x);
        const Vec share = 1.0f / mass_[v];
        float* to = map.at(y, x) + head_ * head_dim_;
        for (int64_t d = 0; d < head_dim_; ++d) {
            float result[LANES];
            store(result, load(total_ + d * QUERIES + v * LANES) * share);
            for (int64_t lane = 0; lane < lanes; ++lane) to[lane * map.channels + d] = result[lane];
        }
    }

    const AttentionTask& task_;
    const int64_t side_, top_, left_, head_, head_dim_, depth_;
    const int64_t blocks_;  // of keys in a row of the window
    float *pixels_, *projected_;
    float *queries_, *values_;  // (side * side, head_dim)
    float* keys_;               // (side, blocks, depth, KEYS)
    float *query_, *total_;     // (depth, QUERIES), (head_dim, QUERIES): of the queries that are worked on
    float *weights_, *peaks_;   // (rows, side, QUERIES), (rows, blocks, QUERIES): of some rows of keys
    float* zeros_;
    int64_t row_[VECTORS], column_[VECTORS];
    Vec mass_[VECTORS];
    float longest_query_, poison_;
};

static int64_t scratch(const AttentionTask& task) { return WindowOfHead::scratch_floats(task); }

static void run(const AttentionTask& task, int64_t window_row, int64_t window_column, int64_t head, float* scratch) {
    WindowOfHead(task, window_row, window_column, head, scratch).run();
}

}  // namespace attention
}  // namespace ESCSR_LEVEL
}  // namespace escsr
