#include "image.h"

namespace escsr {

bool ImageSource::rows(int64_t top, int64_t bottom, ImageRows& rows, Failure& failure) {
    rows.height = height_, rows.width = width_;
    if (image_) {
        rows.data = image_, rows.top = 0, rows.bottom = height_;
        return true;
    }
    const int64_t floats = 3 * (bottom - top) * width_;
    if (planes_.size() < floats && !planes_.allocate(floats, failure)) return false;
    if (rows_->read(rows_->user, top, bottom, planes_.data()))
        return failure.set(ESCSR_CALLBACK, "rows %lld to %lld of the image could not be read", static_cast<long long>(top),
                           static_cast<long long>(bottom));
    rows.data = planes_.data(), rows.top = top, rows.bottom = bottom;
    return true;
}

bool ImageSource::enter(const Configuration& configuration, Place place, Map& entered, Failure& failure) {
    const int64_t u = configuration.unshuffle, channels = 3 * u * u, floats = place.num_pixels() * channels;
    if (entered_.size() < floats && !entered_.allocate(floats, failure)) return false;
    int64_t first = height_, last = 0;
    for (int64_t y = place.top * u; y < place.bottom * u; ++y) {
        first = least(first, reflected(y, height_));
        last = most(last, reflected(y, height_) + 1);
    }
    ImageRows image;
    if (!rows(first, last, image, failure)) return false;
    entered.data = entered_.data(), entered.held = place, entered.channels = channels;
    entered.height = divide_up(height_, u), entered.width = divide_up(width_, u);
    const bool is_centred = configuration.is_any_size();
    for (int64_t y = place.top; y < place.bottom; ++y)
        for (int64_t channel = 0; channel < channels; ++channel) {
            const int64_t sub_row = channel / u % u, sub_column = channel % u;
            const float* from = image.row(channel / (u * u), reflected(y * u + sub_row, height_));
            float* to = entered.at(y, place.left) + channel;
            for (int64_t x = place.left; x < place.right; ++x, to += channels) {
                const float value = from[reflected(x * u + sub_column, width_)];
                *to = is_centred ? (value - 0.5f) / 0.5f : value;
            }
        }
    return true;
}

}  // namespace escsr
