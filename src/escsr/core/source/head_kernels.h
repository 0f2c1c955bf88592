// Kernels of heads and of the features straight from the image, of one level; as those of kernels.h.
#pragma once
#include "configuration.h"
#include "kernels.h"

namespace escsr {

// Three planes of colours, of which a place is in memory.
struct Planes {
    float* data = nullptr;  // of the first plane at (held.top, held.left)
    Place held = {0, 0, 0, 0};
    int64_t row_step = 0, plane_step = 0;
    float* at(int64_t colour, int64_t y, int64_t x) const {
        return data + colour * plane_step + (y - held.top) * row_step + (x - held.left);
    }
};

// Leaky ReLU of the 3x3 convolution of a map enlarged by nearest neighbour, with zeros beyond the whole map.
struct EnlargedTask {
    Map features;         // (I)
    int64_t factor;       // 2 or 3
    const float* weight;  // EnlargedWeights
    const float* bias;    // (O,)
    Map result;           // (O)
    float slope;
};

// 3x3 convolution to three planes, with zeros beyond the whole map.
struct ToPlanesTask {
    Map features;         // (C)
    const float* weight;  // (3 rows, C / lanes, 3 columns, 3 colours, lanes)
    const float* bias;    // (3,)
    Planes result;
};

// Pixel shuffle to three planes: each pixel becomes factor x factor; an enlarged image may be added.
struct ShuffleToPlanesTask {
    Map subpixels;  // (3 * factor^2 and padding), ordered (colour, row, column)
    int64_t factor;
    Planes result;
    ImageSkip skip;
    Planes image;  // holds what the skip needs; where not none
    int64_t image_height, image_width;
};

// Pixel shuffle to a map of features.
struct ShuffleToMapTask {
    Map subpixels;  // (factor^2 * C), ordered (row, column, channel)
    int64_t factor;
    Map result;  // (C)
    bool has_gelu;
};

// features = leaky ReLU(features * sigmoid(pointwise(features)))
struct PixelAttentionTask {
    Map features;         // (C)
    const float* weight;  // (C, C)
    const float* bias;    // (C,)
    float slope;
};

// 3x3 convolution of three planes to three.
struct PlanesTask {
    Planes image;         // holds one pixel more on each side than the place, and rows go on for a vector more
    const float* weight;  // (3 results, 3 colours, 3, 3)
    const float* bias;    // (3,)
    Planes result;
};

// result += reduce(leaky ReLU(depthwise7x7(expand(image)))), the image reflected at its borders: ESC-Real's features
// straight from the image.
struct FeatureSkipTask {
    Map image;                      // (I), not padded
    const float* expand_weight;     // (I, E)
    const float* expand_bias;       // (E,)
    const float* depthwise_weight;  // (49, E)
    const float* depthwise_bias;    // (E,)
    const float* reduce_weight;     // (E, C)
    const float* reduce_bias;       // (C,)
    Map result;                     // (C)
    int64_t expanded;               // E
};

// DySample: a sub-pixel of pixel (y, x) is the bias and the sum over groups of the mixed channels of that group,
// sampled bilinearly at (y, x) + centre + sigmoid(scope) * offset, at most at the middle of the pixels at the borders.
struct DySampleTask {
    Map features;         // (I): what offsets are made of
    const float* weight;  // (I, 4 P): offsets of x, of y, and scopes of x, of y, each ordered (group, row, column)
    const float* bias;    // (4 P,)
    const float* centres;  // (2 P,): of x, of y
    int64_t num_places;    // P = groups * scale^2, padded
    int64_t groups, scale;
    Map mixed;  // (4 * groups and padding): three colours and a zero a group; of what is sampled
    const float* result_bias;  // (3,)
    Planes result;
};

// Local deformable attention of features enlarged by `scale` with corners on corners: each pixel of the result attends
// to nine places, its neighbours and what a network of the enlarged queries adds. Channels are of two groups, each of
// which has places of its own; those of keys and queries are padded to whole blocks of KEY_BLOCK.
constexpr int64_t KEY_BLOCK = 8;
constexpr float LARGEST_OFFSET = 11;  // pixels of the result
struct LocalAttentionTask {
    Map values;                // (2 V); `held` goes one pixel beyond what is needed on each side, where there are zeros
    Map keys;                  // (2 K), held likewise; times log2(e) / sqrt(channels)
    Map queries;               // (2 K)
    const float* depthwise;    // (H, 9): of the network of offsets, the same for both groups
    const float* norm_gain;    // (H,)
    const float* norm_bias;    // (H,)
    const float* to_offsets;   // (H, 9 taps, 9 places, 2): y, then x
    const float* offset_bias;  // (9, 2)
    const float* table;        // (9, 2 K): added to keys; times what those are
    int64_t group_channels;    // H: K without padding
    int64_t scale;
    Map result;                // (2 V)
};

struct HeadKernels {
    int64_t (*enlarged_scratch)(const EnlargedTask&);
    // The place begins at a multiple of the factor.
    void (*convolve_enlarged)(const EnlargedTask&, Place place, float* scratch);
    void (*convolve_to_planes)(const ToPlanesTask&, Place place);
    // The place is one of the result. Scratch for places so wide.
    int64_t (*shuffle_scratch)(int64_t width);
    void (*shuffle_to_planes)(const ShuffleToPlanesTask&, Place place, float* scratch);
    void (*shuffle_to_map)(const ShuffleToMapTask&, Place place);
    int64_t (*pixel_attention_scratch)(const PixelAttentionTask&);
    void (*attend_to_pixels)(const PixelAttentionTask&, Place place, float* scratch);
    void (*convolve_planes)(const PlanesTask&, Place place);
    int64_t (*dysample_scratch)(const DySampleTask&);
    // Where the sub-pixels of a place of the features are sampled: (pixels, 2 P), x and y as from the place's own
    // (left, top). All neighbours lie within what is returned.
    Place (*find_places)(const DySampleTask&, Place place, float* places, float* scratch);
    bool (*has_places_in)(const DySampleTask&, Place place, const float* places, Place tile);
    // The sub-pixels of a place that lie in `result`, of features in a tile: all of them do, or what those contribute
    // that do is added. `mixed` holds a row and a column of zeros beyond the tile.
    void (*sample_places)(const DySampleTask&, Place place, Place result, Place tile, const float* places, bool adds,
                          float* scratch);
    // The place is one of the result. Scratch for places so wide.
    int64_t (*local_attention_scratch)(const LocalAttentionTask&, int64_t width);
    void (*attend_locally)(const LocalAttentionTask&, Place place, float* scratch);
    int64_t (*feature_skip_scratch)(const FeatureSkipTask&);
    void (*add_feature_skip)(const FeatureSkipTask&, Place place, float* scratch);
};

}  // namespace escsr
