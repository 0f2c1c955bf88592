// The large kernel and the dynamic one, ready for the kernels.
#pragma once
#include "configuration.h"
#include "kernels.h"
#include "weights.h"

namespace escsr {

// A large kernel, made once for all layers that share it: in the frequency domain, or as it is where it is too large
// for that.
struct LargeKernelWeights {
    int64_t kernel_size = 0, pdim = 0, channels = 0;  // channels: pdim, padded
    bool is_dense = true;
    Buffer<double> mixing;  // (pdim in, pdim out): what a decomposed kernel does first; empty in a dense one
    // By its spectrum.
    Buffer<float> dense, depthwise_real, depthwise_imag;
    Buffer<int32_t> classes, places;
    Buffer<float> taps_real, taps_imag;  // (1024, 9)
    // Directly.
    Buffer<float> direct;  // (K*K, P, P) or (K*K, P)

    // name: of the module, as "shared_large_kernel".
    bool prepare(const Configuration& configuration, const Tensors& tensors, const char* name, int64_t lanes,
                 Failure& failure);
    bool is_by_spectrum() const { return direct.size() == 0; }
};

// Makes a 3x3 depthwise kernel of the means of an image's channels.
struct DynamicKernelWeights {
    int64_t pdim = 0, hidden = 0;
    Buffer<double> hidden_weight, hidden_bias, kernel_weight, kernel_bias;
    // name: of the module, as "blocks.0.conv_layers.0.conv_attention.dynamic_kernel".
    bool prepare(const Configuration& configuration, const Tensors& tensors, const char* name, Failure& failure);
    bool is_none() const { return pdim == 0; }
    // mean: (pdim,). kernel: (9, channels), zero beyond pdim.
    bool make(const double* mean, int64_t channels, float* kernel, Failure& failure) const;
};

}  // namespace escsr
