// The Local Texture Estimator: from features to a result of any size.
//
// Each pixel of the features gives amplitudes and frequencies of waves. A pixel of the result sums the waves of the
// four pixels around it, each through the MLP, and averages the four by area; then the bilinearly enlarged image is
// added. escsr.model.local_texture has the same in PyTorch.
// Source: Lee and Jin, "Local Texture Estimator for Implicit Representation Function", CVPR 2022.
#pragma once
#include "heads.h"

namespace escsr {

// Where a pixel of the result, a query, lies on one axis of the features.
struct TextureQuery {
    int64_t nearest[2];  // the pixel nearest to the query shifted by half a pixel to the front, and to the back
    int64_t between[2];  // the pixels to interpolate between; alike at a border
    float offset[2];     // from the centre of the nearest pixel to the query, in half pixels
    float share;         // of the pixel at the back in the interpolation
};

// A linear layer of the MLP with the ReLU after it. The weights (inputs, outputs) are cut into panels of
// TextureKernels::panel columns, the last one narrower, each (inputs, columns).
struct TextureLayer {
    const float* weight;
    const float* bias;        // (outputs,)
    int64_t inputs, outputs;  // padded to whole vectors
};

// A rectangle of the result, but for the enlarged image.
struct TextureTask {
    Map textures;         // (4 * waves): amplitudes of cosines and of sines, frequencies along rows and along columns
    const float* phase;   // (waves,), in half turns as the frequencies are
    int64_t waves;        // padded to whole vectors
    const TextureLayer* layers;
    int64_t num_layers;
    const float* last_weight;  // (3, inputs) of the last layer, which has no ReLU
    float last_bias[3];
    const TextureQuery* rows;  // of `place`
    const TextureQuery* columns;
    ResultRows result;
    Place place;
};

struct TextureKernels {
    int64_t panel;
    int64_t (*scratch)(const TextureTask&);
    void (*run)(const TextureTask&, float* scratch);
};

class LocalTextureHead {
   public:
    bool prepare(const Configuration& configuration, const Tensors& tensors, const Kernels& kernels, Failure& failure);

    // As those of Head.
    Place needed(const HeadTask& task, Place result) const;
    Place needed_image(const HeadTask& task, Place result) const;
    void best_part(const HeadTask& task, int64_t& height, int64_t& width) const;
    int64_t scratch(const HeadTask& task, int64_t height, int64_t width) const;
    double work(const HeadTask& task, Place result) const;
    int64_t make(const HeadTask& task, Place result, float* scratch) const;

   private:
    struct Layer {
        Buffer<float> weight, bias;
        int64_t inputs = 0, outputs = 0;
    };
    bool prepare_textures(const Configuration& configuration, const Tensors& tensors, Failure& failure);
    bool prepare_layers(const Configuration& configuration, const Tensors& tensors, Failure& failure);
    bool prepare_last(const Configuration& configuration, const Tensors& tensors, Failure& failure);
    int64_t place_of_input(int64_t input) const;
    ConvolutionTask convolution(const HeadTask& task, Place pixels, float* textures) const;
    TextureTask task_of_kernel(const HeadTask& task, Place result, Map textures) const;
    Place textures_needed(const HeadTask& task, Place result) const;

    const Kernels* kernels_ = nullptr;
    int64_t half_ = 0;   // waves
    int64_t waves_ = 0;  // padded to whole vectors
    WinogradWeights convolution_;
    Buffer<float> phase_;  // (half, 2), of a cell of one half pixel
    Objects<Layer> layers_;
    Buffer<TextureLayer> views_;  // of layers_
    Buffer<float> last_weight_;
    float last_bias_[3] = {};
    double products_of_query_ = 0, products_of_pixel_ = 0;
};

}  // namespace escsr
