// What is computed on vectors, once for each level of instructions: level.cpp is compiled several times, and fills one
// table each. Kernels run in one thread, on a place of a map; who calls them cuts maps into places.
//
// Weights are matrices (inputs, outputs) with both sides padded by zeros to whole vectors, `lanes` floats.
#pragma once
#include "base.h"

namespace escsr {

// A layer of a block in one pass: everything between two mixers.
//
//   x      = features + added * added_weight + added_bias          (the layer before, completed)
//   hidden = GELU(expand([normalised] x));  hidden = GELU(depthwise3x3(hidden)) + hidden
//   result = [x +] reduce(hidden);          side = side(hidden)
struct LayerTask {
    Map features;                   // (C)
    Map added;                      // (A); none
    const float* added_weight;      // (A, C)
    const float* added_bias;        // (C,)
    const float* expand_weight;     // (C, E) in panels; a LayerNorm's weights are in it
    const float* expand_bias;       // (E,)
    const float* depthwise_weight;  // (9, E)
    const float* depthwise_bias;    // (E,)
    const float* last_weight;       // (E, C + S) in panels: reduce and side beside one another
    const float* last_bias;         // (C + S,)
    Map result;                     // (C)
    Map side;                       // (S); none
    int64_t expanded;               // E
    int64_t dim;                    // channels that are not padding, for LayerNorm
    bool normalises, has_residual;
};

// result = [residual +] GELU?([normalised] (features + added * added_weight + added_bias)) * weight + bias
// Without a weight, the product is the value itself times `gain` plus `bias`.
struct LinearTask {
    Map features;               // (C)
    Map added;                  // (A); none
    const float* added_weight;  // (A, C)
    const float* added_bias;    // (C,)
    const float* weight;        // (C, R); null for none
    const float* gain;          // (C,), where there is no weight; null for ones
    const float* bias;          // (R,); null for zeros
    Map residual;               // (R); none. It may be the result itself.
    Map result;                 // (R)
    int64_t dim;                // channels that are not padding, for LayerNorm
    bool normalises;
};

// What a score of 1 is in attention's fixed point: weights are made of 2^(score / SCORE_UNIT).
constexpr float SCORE_UNIT = 8388608.0f;  // 2^23, a float's mantissa

// Attention within windows, from the feature map to the values that the output projection takes. Windows begin at
// multiples of `window` in the whole map and go on beyond its end by reflection; `features` holds what that needs.
struct AttentionTask {
    Map features;                // (C)
    Map attended;                // (heads * head_dim, padded); channels ordered (head, channel)
    const float* project_weight; // (heads, C, Q): q, k and v of a head beside one another; Q = 3 head_dim, padded.
                                 // q's are times SCORE_UNIT log2(e) / sqrt(head_dim); a LayerNorm's weights are
                                 // in it
    const float* project_bias;   // (heads, Q)
    const float* bias;           // (heads, 2w-1 rows, bias_step), times SCORE_UNIT log2(e): row = key minus query + w-1,
                                 // column = query minus key + w-1; null for none
    const float* query_factors;  // (heads, w rows, vectors of columns, rank, lanes), times SCORE_UNIT log2(e) / sqrt(rank);
    const float* key_factors;    // null for none
    int64_t window, heads, head_dim, rank;
    int64_t bias_step;           // 2w-1 and at least a vector more, so that loads of whole vectors stay inside
    int64_t dim;                 // channels that are not padding, for LayerNorm
    bool normalises;
};

// result *= sigmoid(pointwise(depthwise3x3([normalised] features)))
struct GateTask {
    Map features;                   // (C)
    const float* norm_gain;         // (C,) of the LayerNorm; the depthwise convolution sees zeros beyond the map, so
    const float* norm_bias;         // (C,) these cannot be in its weights. Null for no LayerNorm
    const float* depthwise_weight;  // (9, C)
    const float* depthwise_bias;    // (C,)
    const float* pointwise_weight;  // (C, C)
    const float* pointwise_bias;    // (C,)
    Map result;                     // (C)
    int64_t dim;
};

// The large and the dynamic kernel in the frequency domain: tiles of 32x32, overlap-save.
struct SpectrumTask {
    Map features;                 // (P)
    Map result;                   // (P)
    const float* dense;           // (classes, P in, P out): real spectra; null for none
    const int32_t* classes;       // (num_classes + 1) offsets into places
    const int32_t* places;        // (1024,) places of the transform, sorted by class
    const float* depthwise_real;  // (1024, P) by place; null for none
    const float* depthwise_imag;
    int64_t kernel_size, num_classes;
};

// A large kernel of any size, directly: result = dense * features + depthwise * features.
struct LargeKernelTask {
    Map features;            // (P)
    Map result;              // (P)
    const float* dense;      // (K*K, P in, P out); null for none
    const float* depthwise;  // (K*K, P), of size K; null for none
    const float* dynamic;    // (9, P), of size 3; null for none
    int64_t kernel_size;
};

// Outputs whose weights are used together, since those of all may not fit into the cache.
constexpr int64_t WINOGRAD_OUTPUTS = 64;

// 3x3 convolution by Winograd's F(4x4, 3x3), with zeros beyond the whole map, and what often follows it.
struct ConvolutionTask {
    Map features;         // (I)
    const float* weight;  // transformed: (36, I, 64) of the first WINOGRAD_OUTPUTS outputs, of the next, and so on
    const float* bias;    // (O,)
    Map added;            // (O), added before the slope; none. It may be the result itself.
    Map result;           // (O)
    float slope;          // of the leaky ReLU at the end; 1 for none
};

// 3x3 convolution of a map with few channels that are not padded (an image): result = [result +] conv(features).
struct ShallowTask {
    Map features;         // (I), not padded
    const float* weight;  // (9 * I, O): (tap, input)
    const float* bias;    // (O,)
    Map result;           // (O)
    bool adds;
};

constexpr int64_t SUM_ROWS = 16;  // sums are of so many rows, whatever the threads' pieces are
constexpr int64_t PIECE_COLUMNS = 64;

struct Kernels {
    const char* name;
    int64_t lanes;
    // A matrix (depth, width) in the order of this level's products, as large.
    void (*to_panels)(const float* weight, int64_t depth, int64_t width, float* panels);
    // The floats of scratch that a kernel needs.
    int64_t (*layer_scratch)(const LayerTask&);
    // hidden_sum: (height / SUM_ROWS rounded up, E), the sums of hidden over so many rows each are added to it; null for
    // none. The place: any height, at most PIECE_COLUMNS columns.
    void (*run_layer)(const LayerTask&, Place place, double* hidden_sum, float* scratch);
    int64_t (*linear_scratch)(const LinearTask&);
    // result_sum: (R,), the sums of the result over the place are added to it; null for none.
    void (*run_linear)(const LinearTask&, Place place, double* result_sum, float* scratch);
    int64_t (*attention_scratch)(const AttentionTask&);
    void (*attend)(const AttentionTask&, int64_t window_row, int64_t window_column, int64_t head, float* scratch);
    int64_t (*gate_scratch)(const GateTask&);
    void (*run_gate)(const GateTask&, Place place, float* scratch);
    int64_t (*spectrum_scratch)(const SpectrumTask&);
    // Two tiles: the places whose results begin at (top, left) and (top, left + 33 - kernel_size); `end` bounds what
    // is written.
    void (*run_spectrum)(const SpectrumTask&, int64_t top, int64_t left, Place end, float* scratch);
    // real, imag (1024, P) = [base +] the spectra of a depthwise 3x3 kernel (9, P)
    void (*dynamic_spectrum)(const float* taps_real, const float* taps_imag, const float* dynamic,
                             const float* base_real, const float* base_imag, int64_t channels, float* real,
                             float* imag);
    void (*run_large_kernel)(const LargeKernelTask&, Place place);
    int64_t (*convolution_scratch)(const ConvolutionTask&);
    void (*convolve_3x3)(const ConvolutionTask&, Place place, float* scratch);
    int64_t (*shallow_scratch)(const ShallowTask&);
    void (*convolve_shallow)(const ShallowTask&, Place place, float* scratch);
    // The kernels of heads are declared in heads.h, those of ESC+LTE's in head_lte.h.
    const struct HeadKernels* heads;
    const struct TextureKernels* texture;
};

// The best that this processor has, or what the environment variable ESCSR_CPU names: avx512, avx2, sse4.2, neon,
// simd128, generic.
const Kernels* choose_kernels(Failure& failure);

}  // namespace escsr
