// Heads that are stacks of convolutions: pixelshuffledirect, pixelshuffle, nearest+conv, conv+nearest, transpose+conv
// and pa_up.
#pragma once
#include "head_kernels.h"
#include "heads.h"

namespace escsr {

// A 3x3 convolution NAME.weight (outputs, inputs, 3, 3), NAME.bias, for HeadKernels::convolve_enlarged.
struct EnlargedWeights {
    Buffer<float> weight;  // (25 or 9, I, O) in the order of the kernel
    Buffer<float> bias;    // (O,)
    int64_t inputs = 0, outputs = 0, factor = 1;  // padded
    bool make(const Tensors& tensors, const char* name, int64_t inputs, int64_t outputs, int64_t factor, int64_t lanes,
              Failure& failure);
};

class StackHead {
   public:
    bool prepare(const Configuration& configuration, const Tensors& tensors, const Kernels& kernels, Failure& failure);
    Place needed(const HeadTask& task, Place result) const;
    Place needed_image(const HeadTask& task, Place result) const;
    void best_part(const HeadTask& task, int64_t& height, int64_t& width) const;
    int64_t scratch(const HeadTask& task, int64_t height, int64_t width) const;
    double work(const HeadTask& task, Place result) const;
    int64_t make(const HeadTask& task, Place result, float* scratch) const;

   private:
    friend class StackRun;

    // A 3x3 convolution from one map to the next, with what goes before and after it.
    struct Stage {
        int64_t enlarged = 1;  // the map before, by nearest neighbour
        int64_t shuffled = 1;  // its results, to pixels
        WinogradWeights weights;           // where the map before is not enlarged
        EnlargedWeights enlarged_weights;  // where it is
        int64_t channels = 0;  // of the map it makes, padded
        float slope = 1;
        bool has_gelu = false;
        Buffer<float> gate_weight, gate_bias;  // of pixel attention, before the slope; empty for none
    };

    bool prepare_stages(const Configuration& configuration, const Tensors& tensors, Failure& failure);
    // Stage `number` is a convolution, layers.LAYER.
    bool convolve(int64_t number, int64_t layer, int64_t inputs, int64_t outputs, int64_t enlarged, float slope,
                  const Tensors& tensors, Failure& failure);
    // Stage `number` is a convolution, layers.LAYER, and pixel shuffle.
    bool convolve_and_shuffle(int64_t number, int64_t layer, int64_t channels, int64_t factor, const Tensors& tensors,
                              Failure& failure);
    bool prepare_transposed(const Configuration& configuration, const Tensors& tensors, Failure& failure);
    bool transpose(WinogradWeights& weights, int64_t layer, int64_t inputs, int64_t outputs, int64_t factor,
                   bool to_planes, const Tensors& tensors, Failure& failure) const;
    bool end_with_convolution(int64_t layer, int64_t inputs, const Tensors& tensors, Failure& failure);

    int64_t num_stages() const { return stages_.size(); }

    const Kernels* kernels_ = nullptr;
    Objects<Stage> stages_;
    // After the last stage either a convolution to planes or ...
    Buffer<float> to_planes_;
    // ... one to sub-pixels of planes, which are shuffled,
    WinogradWeights to_subpixels_;
    int64_t last_factor_ = 1;
    ImageSkip skip_ = ImageSkip::none;
    // and a convolution of planes; empty for none.
    Buffer<float> planes_weight_;
    float last_bias_[3] = {0, 0, 0};
    int64_t scale_ = 1;  // from the features to the result
};

// NAME.weight (3, inputs, 3, 3), for ToPlanesTask. Channels of the map are groups, each padded to whole vectors.
bool to_planes_weights(const Tensors& tensors, const char* name, int64_t inputs, int64_t groups, int64_t lanes,
                       Buffer<float>& weight, float* bias, Failure& failure);

// As kernels take planes.
Planes planes_of(const ResultRows& rows);
Planes planes_of(const ImageRows& rows);

}  // namespace escsr
