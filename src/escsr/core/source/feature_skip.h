// Features straight from the image (ESC-Real): 1x1, depthwise 7x7 of the reflected map, leaky ReLU 0.2, 1x1.
#pragma once
#include "configuration.h"
#include "feature_maps.h"
#include "head_kernels.h"
#include "image.h"
#include "weights.h"

namespace escsr {

class FeatureSkip {
   public:
    bool prepare(const Configuration& configuration, const Tensors& tensors, int64_t lanes, Failure& failure);
    // Add what comes of the image to a core of the features.
    bool add(Session& session, ImageSource& image, Place core, const Map& features, Failure& failure) const;
    int64_t scratch(const Kernels& kernels) const;
    // Multiply-adds per pixel.
    double work() const {
        return static_cast<double>(expand_weight_.size() + depthwise_weight_.size() + reduce_weight_.size());
    }

   private:
    FeatureSkipTask task(const Map& image, const Map& features) const;

    Configuration configuration_;
    Buffer<float> expand_weight_, expand_bias_, depthwise_weight_, depthwise_bias_, reduce_weight_, reduce_bias_;
};

}  // namespace escsr
