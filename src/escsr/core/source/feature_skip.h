// Features straight from the image (ESC-Real): 1x1, depthwise 7x7 of the reflected map, leaky ReLU 0.2, 1x1.
#pragma once
#include "configuration.h"
#include "feature_maps.h"
#include "image.h"
#include "weights.h"

namespace escsr {

class FeatureSkip {
   public:
    bool prepare(const Configuration& configuration, const Tensors& tensors, int64_t lanes, Failure& failure);
    // Add what comes of the image to a core of the features.
    bool add(Session& session, ImageSource& image, Place core, const Map& features, Failure& failure) const;

    Buffer<float> expand_weight, expand_bias, depthwise_weight, depthwise_bias, reduce_weight, reduce_bias;
};

}  // namespace escsr
