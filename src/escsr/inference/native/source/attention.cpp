// Attention within windows, taken from the feature map as it lies there and put back the same way.
//
// Queries fill the lanes: a vector holds 16 neighbouring queries of one row of a window, whose biases
// for one key lie beside each other in the table of relative offsets. So neither scores nor an
// expanded bias are ever in memory, and keys and values are read as single numbers.
#include "lanes.h"

struct AttentionTask {
    const float* qkv;   // (H*W, 3*heads*D), channels ordered (qkv, head, channel)
    float* attended;    // (H*W, heads*D)
    const float* bias;  // (heads, 2w-1, 2w-1), times log2 e, columns in reverse: query minus key
    int64_t height, width, heads, window, head_dim, threads;
    float scale;        // of the dot products, times log2 e
};

namespace {

// Where a place in a window lies in the map, which goes on beyond its end by reflection.
inline int64_t reflected(int64_t position, int64_t length) {
    if (length == 1) return 0;
    const int64_t period = 2 * (length - 1);
    const int64_t folded = position % period;
    return folded < length ? folded : period - folded;
}

template <int D>
class WindowOfHead {
   public:
    WindowOfHead(const AttentionTask& task, int64_t window_row, int64_t window_column, int64_t head, float* scratch)
        : task_(task), side_(task.window), top_(window_row * side_), left_(window_column * side_), head_(head),
          keys_(scratch), values_(keys_ + side_ * side_ * D), scores_(values_ + side_ * side_ * D) {}

    static size_t floats(int64_t side) { return 2 * side * side * D + side * LANES + LANES; }

    void run() {
        gather();
        for (int64_t row = 0; row < std::min(side_, task_.height - top_); ++row)
            for (int64_t column = 0; column < std::min(side_, task_.width - left_); column += LANES)
                attend(row, column);
    }

   private:
    const float* pixel(int64_t row, int64_t column) const {
        const int64_t y = reflected(top_ + row, task_.height), x = reflected(left_ + column, task_.width);
        return task_.qkv + (y * task_.width + x) * 3 * task_.heads * D + head_ * D;
    }

    void gather() {
        const int64_t channels = task_.heads * D;
        for (int64_t row = 0; row < side_; ++row)
            for (int64_t column = 0; column < side_; ++column) {
                const float* from = pixel(row, column);
                std::memcpy(keys_ + (row * side_ + column) * D, from + channels, 4 * D);
                std::memcpy(values_ + (row * side_ + column) * D, from + 2 * channels, 4 * D);
            }
    }

    void attend(int64_t row, int64_t column) {
        Vec query[D], total[D];
        for (int d = 0; d < D; ++d) total[d] = Vec{};
        float transposed[D][LANES];
        for (int lane = 0; lane < LANES; ++lane) {
            const float* from = pixel(row, column + lane);
            for (int d = 0; d < D; ++d) transposed[d][lane] = from[d] * task_.scale;
        }
        for (int d = 0; d < D; ++d) query[d] = load(transposed[d]);
        const int64_t offsets = 2 * side_ - 1;
        const float* bias = task_.bias + head_ * offsets * offsets;
        Vec highest = all(-1e30f), mass = Vec{};
        for (int64_t key_row = 0; key_row < side_; ++key_row) {
            const float* offset = bias + (key_row - row + side_ - 1) * offsets + column + side_ - 1;
            const Vec higher = larger(highest, score(query, keys_ + key_row * side_ * D, offset));
            const Vec shrink = exp2_of(highest - higher);
            highest = higher;
            mass *= shrink;
            for (int d = 0; d < D; ++d) total[d] *= shrink;
            mass += gather_values(total, values_ + key_row * side_ * D, highest);
        }
        put(row, column, total, mass);
    }

    // Scores of one row of keys, into scores_; the highest of each query.
    Vec score(const Vec* query, const float* keys, const float* offset) {
        constexpr int AT_ONCE = 8;
        Vec highest = all(-1e30f);
        for (int64_t first = 0; first < side_; first += AT_ONCE) {
            Vec scores[AT_ONCE];
#pragma GCC unroll 8
            for (int key = 0; key < AT_ONCE; ++key) scores[key] = load(offset - first - key);
#pragma GCC unroll 32
            for (int d = 0; d < D; ++d)
#pragma GCC unroll 8
                for (int key = 0; key < AT_ONCE; ++key) scores[key] += query[d] * keys[(first + key) * D + d];
#pragma GCC unroll 8
            for (int key = 0; key < AT_ONCE; ++key) {
                highest = larger(highest, scores[key]);
                store(scores_ + (first + key) * LANES, scores[key]);
            }
        }
        return highest;
    }

    // Add a row of values, weighted; the sum of the weights.
    Vec gather_values(Vec* total, const float* values, Vec highest) {
        constexpr int AT_ONCE = 8;
        Vec mass = Vec{};
        for (int64_t first = 0; first < side_; first += AT_ONCE) {
            Vec weights[AT_ONCE];
#pragma GCC unroll 8
            for (int key = 0; key < AT_ONCE; ++key) {
                weights[key] = exp2_of(load(scores_ + (first + key) * LANES) - highest);
                mass += weights[key];
            }
#pragma GCC unroll 8
            for (int key = 0; key < AT_ONCE; ++key)
#pragma GCC unroll 32
                for (int d = 0; d < D; ++d) total[d] += weights[key] * values[(first + key) * D + d];
        }
        return mass;
    }

    void put(int64_t row, int64_t column, const Vec* total, Vec mass) {
        float result[D][LANES];
        const Vec share = 1.0f / mass;
        for (int d = 0; d < D; ++d) store(result[d], total[d] * share);
        const int64_t lanes = std::min<int64_t>(LANES, task_.width - left_ - column);
        float* to = task_.attended + ((top_ + row) * task_.width + left_ + column) * task_.heads * D + head_ * D;
        for (int64_t lane = 0; lane < lanes; ++lane, to += task_.heads * D)
            for (int d = 0; d < D; ++d) to[d] = result[d][lane];
    }

    const AttentionTask& task_;
    const int64_t side_, top_, left_, head_;
    float *keys_, *values_, *scores_;
};

template <int D>
void attend_all(const AttentionTask& task) {
    const int64_t side = task.window;
    const int64_t rows = (task.height + side - 1) / side, columns = (task.width + side - 1) / side;
    const int64_t threads = std::max<int64_t>(1, task.threads);
    std::vector<std::unique_ptr<Scratch>> own;
    for (int64_t thread = 0; thread < threads; ++thread) own.push_back(std::make_unique<Scratch>(WindowOfHead<D>::floats(side)));
    in_threads(rows * columns * task.heads, threads, [&](int64_t item, int64_t thread) {
        const int64_t head = item % task.heads, window = item / task.heads;
        WindowOfHead<D>(task, window / columns, window % columns, head, own[thread]->get()).run();
    });
}

}  // namespace

// NOT_OURS when the shape is not one of ours: a side of whole vectors, heads of 8, 16 or 32.
extern "C" int escsr_attend(const AttentionTask* task) {
    if (task->window % LANES || task->window % 8) return NOT_OURS;
    return guarded([&] {
        switch (task->head_dim) {
            case 8: attend_all<8>(*task); return DONE;
            case 16: attend_all<16>(*task); return DONE;
            case 32: attend_all<32>(*task); return DONE;
            default: return NOT_OURS;
        }
    });
}
