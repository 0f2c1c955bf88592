// The image that a run enlarges, in memory or read by rows, and as the body sees it.
#pragma once
#include "configuration.h"
#include "heads.h"

namespace escsr {

class ImageSource {
   public:
    // Of a whole image (3, height, width), or of rows that are asked for.
    ImageSource(const float* image, int64_t height, int64_t width) : image_(image), height_(height), width_(width) {}
    ImageSource(const escsr_rows& rows, int64_t height, int64_t width) : rows_(&rows), height_(height), width_(width) {}

    int64_t height() const { return height_; }
    int64_t width() const { return width_; }

    // Rows [top, bottom), or more; valid until the next call.
    bool rows(int64_t top, int64_t bottom, ImageRows& rows, Failure& failure);

    // What the body sees at a place of its map: (place, 3 unshuffle^2), ordered (channel, sub-row, sub-column); beyond
    // the image it is reflected.
    bool enter(const Configuration& configuration, Place place, Map& entered, Failure& failure);

   private:
    const float* image_ = nullptr;
    const escsr_rows* rows_ = nullptr;
    int64_t height_, width_;
    Buffer<float> planes_;
    Buffer<float> entered_;
};

}  // namespace escsr
