// The Local Texture Estimator on a rectangle of the result: waves of the four pixels around each query, the MLP, and
// their average.
//
// Queries between the same four pixels lie beside one another in a batch, and so do their rows of the same pixel. A
// batch goes through all layers while its rows are in the cache. Where a ReLU has made zeros in all rows of a group,
// which is often, since they are neighbours, the next layer skips their products.
#pragma once
#include "../head_lte.h"
#include "maps.h"

namespace escsr {
namespace ESCSR_LEVEL {
namespace texture {

// As many sums as registers hold.
constexpr int VECTORS = REGISTERS == 32 ? 4 : 2;
constexpr int ROWS = 6;
constexpr int64_t PANEL = VECTORS * LANES;
constexpr int64_t QUERIES = 24;  // of a batch
constexpr int64_t BATCH = 4 * QUERIES, GROUPS = BATCH / ROWS;  // rows, and groups of rows
static_assert(BATCH % ROWS == 0, "rows are multiplied in whole groups");

// cos and sin of pi * x, off by 2e-7 at most.
static inline void waves_of(Vec x, Vec& cosine, Vec& sine) {
    const float to_whole = 12582912.0f;  // 1.5 * 2^23: adding it rounds to whole numbers
    const Vec shifted = x + to_whole;
    const Vec r = x - (shifted - to_whole);  // in [-1/2, 1/2]
    const IntVec sign = (IntVec)shifted << 31;
    const Vec u = r * r;
    Vec s = u * 0.0772201291f - 0.598045174f;
    s = s * u + 2.55003137f;
    s = s * u - 5.16770688f;
    s = s * u + 3.14159258f;
    Vec c = u * -0.0243967166f + 0.234937559f;
    c = c * u - 1.33521206f;
    c = c * u + 4.05870916f;
    c = c * u - 4.93480214f;
    c = c * u + 1.0f;
    cosine = (Vec)((IntVec)c ^ sign);
    sine = (Vec)((IntVec)(s * r) ^ sign);
}

// ReLU that keeps NaN.
static inline Vec rectified(Vec value) { return value < 0 ? Vec{} : value; }

// Inputs of a layer, in rising order.
struct Inputs {
    const uint32_t* first;
    const uint32_t* last;
};

// For each set of eight, as bits, its members and their number.
struct MembersOfSets {
    uint8_t members[256][8] = {};
    uint8_t count[256] = {};
    constexpr MembersOfSets() {
        for (int set = 0; set < 256; ++set)
            for (uint8_t member = 0; member < 8; ++member)
                if (set >> member & 1) members[set][count[set]++] = member;
    }
};
constexpr MembersOfSets SETS;
typedef uint8_t EightBytes __attribute__((vector_size(8)));
typedef uint32_t EightNumbers __attribute__((vector_size(32)));
typedef int8_t ByteVec __attribute__((vector_size(LANES)));

// The inputs that are not zero in all rows of a group, into `used`; as many, and up to 8 more numbers are written.
static inline int64_t find_used(const float* in, int64_t step, int64_t inputs, uint32_t* used) {
    constexpr int TOGETHER = LANES < 8 ? LANES : 8;
    int64_t count = 0;
    for (int64_t k = 0; k < inputs; k += LANES) {
        IntVec any = {};
#pragma GCC unroll 8
        for (int64_t p = 0; p < ROWS; ++p) any |= (IntVec)load(in + p * step + k);
        const ByteVec flags = __builtin_convertvector(any != 0, ByteVec);
        uint64_t bytes[LANES / TOGETHER] = {};
        memcpy(bytes, &flags, sizeof(flags));
        for (int64_t part = 0; part < LANES / TOGETHER; ++part) {
            // Bit i of byte i, added up in the last byte.
            const uint64_t set = ((bytes[part] & 0x8040201008040201u) * 0x0101010101010101u) >> 56;
            EightBytes members;
            memcpy(&members, SETS.members[set], sizeof(members));
            const EightNumbers numbers =
                __builtin_convertvector(members, EightNumbers) + static_cast<uint32_t>(k + part * TOGETHER);
            memcpy(used + count, &numbers, sizeof(numbers));
            count += SETS.count[set];
        }
    }
    return count;
}

// A group of rows times a panel.
template <int COLUMNS>
static inline void multiply_panel(const float* in, int64_t step, Inputs inputs, const float* panel, const float* bias,
                                  float* out, int64_t out_step) {
    Vec total[ROWS][COLUMNS];
#pragma GCC unroll 8
    for (int p = 0; p < ROWS; ++p)
#pragma GCC unroll 8
        for (int v = 0; v < COLUMNS; ++v) total[p][v] = load(bias + v * LANES);
    for (const uint32_t* input = inputs.first; input < inputs.last; ++input) {
        const float* value = in + *input;
        const float* weight = panel + static_cast<int64_t>(*input) * (COLUMNS * LANES);
        Vec row[COLUMNS];
#pragma GCC unroll 8
        for (int v = 0; v < COLUMNS; ++v) row[v] = load(weight + v * LANES);
#pragma GCC unroll 8
        for (int p = 0; p < ROWS; ++p)
#pragma GCC unroll 8
            for (int v = 0; v < COLUMNS; ++v) total[p][v] += value[p * step] * row[v];
    }
#pragma GCC unroll 8
    for (int p = 0; p < ROWS; ++p)
#pragma GCC unroll 8
        for (int v = 0; v < COLUMNS; ++v) store(out + p * out_step + v * LANES, rectified(total[p][v]));
}

template <int COLUMNS>
static inline void multiply_groups(const float* in, int64_t step, int64_t rows, const Inputs* inputs,
                                   const float* panel, const float* bias, float* out, int64_t out_step) {
    for (int64_t row = 0; row < rows; row += ROWS)
        multiply_panel<COLUMNS>(in + row * step, step, inputs[row / ROWS], panel, bias, out + row * out_step, out_step);
}

// out (rows, outputs) = ReLU(in (rows, inputs) * weight + bias); rows in whole groups.
static inline void run_layer(const TextureLayer& layer, const float* in, int64_t rows, const Inputs* inputs,
                             float* out) {
    const int64_t step = layer.inputs, outputs = layer.outputs;
    for (int64_t first = 0; first < outputs; first += PANEL) {
        const float* panel = layer.weight + first * step;
        const float* bias = layer.bias + first;
        float* to = out + first;
        switch (least<int64_t>(VECTORS, (outputs - first) / LANES)) {
            case 4: multiply_groups<4>(in, step, rows, inputs, panel, bias, to, outputs); break;
            case 3: multiply_groups<3>(in, step, rows, inputs, panel, bias, to, outputs); break;
            case 2: multiply_groups<2>(in, step, rows, inputs, panel, bias, to, outputs); break;
            default: multiply_groups<1>(in, step, rows, inputs, panel, bias, to, outputs);
        }
    }
}

static inline int64_t widest_row(const TextureTask& task) {
    int64_t widest = 2 * task.waves;
    for (int64_t i = 0; i < task.num_layers; ++i) widest = most(widest, task.layers[i].outputs);
    return widest;
}

class Batch {
   public:
    Batch(const TextureTask& task, float* scratch) : task_(task), waves_(task.waves) {
        Cut cut(scratch);
        in_ = cut.take(BATCH * widest_row(task));
        out_ = cut.take(BATCH * widest_row(task));
        void* numbers = cut.take(GROUPS * (widest_row(task) + 8));
        used_ = static_cast<uint32_t*>(numbers);
    }

    static int64_t floats(const TextureTask& task) {
        return 2 * Cut::size(BATCH * widest_row(task)) + Cut::size(GROUPS * (widest_row(task) + 8));
    }

    // The queries between the same pixels.
    void add_cell(int64_t top, int64_t bottom, int64_t left, int64_t right) {
        bool is_first = true;  // of the cell, or of what is left of it for the next batch
        for (int64_t y = top; y < bottom; ++y)
            for (int64_t x = left; x < right; ++x) {
                if (is_first) cells_[num_cells_++] = count_;
                y_[count_] = y, x_[count_] = x;
                is_first = ++count_ == QUERIES;
                if (is_first) finish();
            }
    }

    // Make all queries that were added.
    void finish() {
        if (count_ == 0) return;
        cells_[num_cells_] = count_;
        for (int64_t cell = 0; cell < num_cells_; ++cell)
            for (int64_t corner = 0; corner < 4; ++corner)
                for (int64_t query = cells_[cell]; query < cells_[cell + 1]; ++query)
                    put_waves(query, corner, in_ + row_of(cell, query, corner) * 2 * waves_);
        const int64_t rows = round_up(4 * count_, ROWS);
        memset(in_ + 4 * count_ * 2 * waves_, 0, sizeof(float) * static_cast<size_t>((rows - 4 * count_) * 2 * waves_));
        int64_t width = 2 * waves_;
        for (int64_t i = 0; i < task_.num_layers; ++i) {
            Inputs inputs[GROUPS];
            if (i == 0)
                use_all(width, inputs);
            else
                find_inputs(rows, width, inputs);
            run_layer(task_.layers[i], in_, rows, inputs, out_);
            float* swapped = in_;
            in_ = out_, out_ = swapped;
            width = task_.layers[i].outputs;
        }
        for (int64_t cell = 0; cell < num_cells_; ++cell)
            for (int64_t query = cells_[cell]; query < cells_[cell + 1]; ++query) put_result(cell, query, width);
        count_ = 0, num_cells_ = 0;
    }

   private:
    // Waves are hardly ever zero.
    void use_all(int64_t width, Inputs* inputs) {
        for (int64_t k = 0; k < width; ++k) used_[k] = static_cast<uint32_t>(k);
        for (int64_t group = 0; group < GROUPS; ++group) inputs[group] = {used_, used_ + width};
    }

    void find_inputs(int64_t rows, int64_t width, Inputs* inputs) {
        for (int64_t group = 0; group < rows / ROWS; ++group) {
            uint32_t* used = used_ + group * (width + 8);
            inputs[group] = {used, used + find_used(in_ + group * ROWS * width, width, width, used)};
        }
    }

    // Rows of a cell: those of its first pixel, of its second, ...
    int64_t row_of(int64_t cell, int64_t query, int64_t corner) const {
        const int64_t first = cells_[cell], size = cells_[cell + 1] - first;
        return 4 * first + corner * size + query - first;
    }

    const TextureQuery& row_query(int64_t query) const { return task_.rows[y_[query] - task_.place.top]; }
    const TextureQuery& column_query(int64_t query) const { return task_.columns[x_[query] - task_.place.left]; }

    // amplitude * [cos, sin](pi (frequency . offset + phase))
    void put_waves(int64_t query, int64_t corner, float* to) const {
        const TextureQuery &row = row_query(query), &column = column_query(query);
        const float* from = task_.textures.at(row.nearest[corner / 2], column.nearest[corner % 2]);
        const float along_rows = row.offset[corner / 2], along_columns = column.offset[corner % 2];
        for (int64_t c = 0; c < waves_; c += LANES) {
            const Vec turns = load(task_.phase + c) + load(from + 2 * waves_ + c) * along_rows +
                              load(from + 3 * waves_ + c) * along_columns;
            Vec cosine, sine;
            waves_of(turns, cosine, sine);
            store(to + c, load(from + c) * cosine);
            store(to + waves_ + c, load(from + waves_ + c) * sine);
        }
    }

    // The last layer is linear, so what goes into it may be averaged.
    void put_result(int64_t cell, int64_t query, int64_t width) const {
        float share[4];
        shares(query, share);
        const float* row[4];
        for (int64_t corner = 0; corner < 4; ++corner) row[corner] = in_ + row_of(cell, query, corner) * width;
        Vec total[3] = {Vec{}, Vec{}, Vec{}};
        for (int64_t c = 0; c < width; c += LANES) {
            const Vec mean = load(row[0] + c) * share[0] + load(row[1] + c) * share[1] + load(row[2] + c) * share[2] +
                             load(row[3] + c) * share[3];
            for (int channel = 0; channel < 3; ++channel)
                total[channel] += mean * load(task_.last_weight + channel * width + c);
        }
        for (int64_t channel = 0; channel < 3; ++channel)
            task_.result.row(channel, y_[query])[x_[query]] = sum_of(total[channel]) + task_.last_bias[channel];
    }

    // Each pixel is weighed by the area at the opposite corner: the nearer, the more.
    void shares(int64_t query, float* share) const {
        constexpr float LEAST_AREA = 1e-9f;
        const TextureQuery &row = row_query(query), &column = column_query(query);
        float whole = 0;
        for (int64_t corner = 0; corner < 4; ++corner) {
            share[3 - corner] = fabsf(row.offset[corner / 2] * column.offset[corner % 2]) + LEAST_AREA;
            whole += share[3 - corner];
        }
        for (int64_t corner = 0; corner < 4; ++corner) share[corner] /= whole;
    }

    const TextureTask& task_;
    const int64_t waves_;
    float *in_, *out_;
    uint32_t* used_;
    int64_t count_ = 0, num_cells_ = 0;
    int64_t y_[QUERIES], x_[QUERIES];
    int64_t cells_[QUERIES + 1];  // the first query of each, and the end
};

// How many queries of an axis lie between the same pixels as the one at `first`.
static inline int64_t alike(const TextureQuery* queries, int64_t first, int64_t end) {
    int64_t last = first + 1;
    while (last < end && queries[last].nearest[0] == queries[first].nearest[0] &&
           queries[last].nearest[1] == queries[first].nearest[1])
        ++last;
    return last - first;
}

static int64_t scratch(const TextureTask& task) { return Batch::floats(task); }

static void run(const TextureTask& task, float* scratch) {
    Batch batch(task, scratch);
    const Place& place = task.place;
    int64_t down = 0, across = 0;
    for (int64_t top = 0; top < place.height(); top += down) {
        down = alike(task.rows, top, place.height());
        for (int64_t left = 0; left < place.width(); left += across) {
            across = alike(task.columns, left, place.width());
            batch.add_cell(place.top + top, place.top + top + down, place.left + left, place.left + left + across);
        }
    }
    batch.finish();
}

static const TextureKernels kernels = {PANEL, scratch, run};

}  // namespace texture
}  // namespace ESCSR_LEVEL
}  // namespace escsr
