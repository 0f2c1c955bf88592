// The hyper-parameters of a network, as escsr.family.configuration.ESCConfig has them.
#pragma once
#include "base.h"

namespace escsr {

enum class ImageSkip { nearest, bicubic, none };
enum class LargeKernel { dense, decomposed };
enum class PositionBias { table, implicit };
enum class Mixer { window, convolution };
enum class Upsampler {
    pixelshuffledirect, pixelshuffle, nearest_conv, conv_nearest, dysample, lte, transpose_conv, lda, pa_up
};

struct Configuration {
    int64_t scale = 4, dim = 64, pdim = 16, num_blocks = 5, num_conv_layers = 5, window_size = 32, num_heads = 4;
    int64_t large_kernel_size = 13;
    double expansion = 1.25, first_expansion = 2.0;
    bool norm_in_conv_layers = false, norm_before_last_conv = false;
    ImageSkip image_skip = ImageSkip::nearest;
    bool feature_skip = false;
    LargeKernel large_kernel = LargeKernel::dense;
    Upsampler upsampler = Upsampler::pixelshuffledirect;
    int64_t upsampler_dim = 48, dysample_groups = 4, unshuffle = 1;
    int64_t texture_dim = 256, texture_mlp_dim = 256, texture_mlp_layers = 3;
    PositionBias position_bias = PositionBias::table;
    int64_t position_rank = 16, position_hidden_dim = 32, position_frequencies = 10;
    bool attention_gate = false;
    Mixer first_mixer = Mixer::window, layer_mixer = Mixer::convolution;
    bool dynamic_kernel = true, share_large_kernel = true;

    // From JSON, checked as ESCConfig checks; unknown names are errors.
    bool parse(const char* json, int64_t length, Failure& failure);

    int64_t inner_scale() const { return scale * unshuffle; }
    int64_t window_pixels() const { return window_size * unshuffle; }
    bool is_any_size() const { return upsampler == Upsampler::lte; }
    int64_t hidden_of(double factor) const { return static_cast<int64_t>(static_cast<double>(dim) * factor); }
};

}  // namespace escsr
