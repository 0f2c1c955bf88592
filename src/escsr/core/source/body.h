// The body of a network: from the image to the features that the head takes.
#pragma once
#include "configuration.h"
#include "feature_maps.h"
#include "image.h"
#include "kernels.h"
#include "weights.h"

namespace escsr {

class Body {
   public:
    ~Body();
    Body() = default;
    Body(const Body&) = delete;
    Body& operator=(const Body&) = delete;

    bool prepare(const Configuration& configuration, const Tensors& tensors, const Kernels& kernels, Failure& failure);

    // Make the maps that a run needs, and the features of an image. `features` is one of those maps afterwards.
    bool run(Session& session, ImageSource& image, FeatureMap& features, Failure& failure) const;

    // Floats that `run` keeps for each pixel of the features, from its start to its end.
    int64_t floats_per_pixel(bool is_stored) const;
    // Floats of parts of maps, for each pixel of a core, and how many pixels a stage looks around one.
    int64_t floats_per_core_pixel() const;
    int64_t largest_margin() const;
    // Floats of one thread.
    int64_t scratch() const;
    // Multiply-adds for a map of this size, for the progress.
    double work(int64_t height, int64_t width) const;

    struct Parts;

   private:
    Parts* parts_ = nullptr;
};

}  // namespace escsr
