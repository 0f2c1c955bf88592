#include "feature_maps.h"

namespace escsr {

namespace {
constexpr int64_t MOST_MAPS = 8;
}  // namespace

bool Session::make(FeatureMap& map, int64_t channels, Failure& failure) {
    map.channels = channels;
    if (is_stored()) {
        map.offset = storage_end_;
        storage_end_ += height_ * width_ * channels * static_cast<int64_t>(sizeof(float));
        return true;
    }
    if (memory_.size() == 0 && !memory_.make(MOST_MAPS, failure)) return false;
    Buffer<float>& memory = memory_[num_maps_++];
    if (!memory.allocate(height_ * width_ * channels, failure)) return false;
    map.memory = memory.data();
    return true;
}

Place Session::core(int64_t number) const {
    const int64_t columns = divide_up(width_, core_width_);
    const int64_t top = number / columns * core_height_, left = number % columns * core_width_;
    return {top, least(top + core_height_, height_), left, least(left + core_width_, width_)};
}

bool Session::temporary(int slot, int64_t channels, Place place, Map& made, Failure& failure) {
    Buffer<float>& buffer = slots_[slot];
    const int64_t floats = place.num_pixels() * channels;
    if (buffer.size() < floats && !buffer.allocate(floats, failure)) return false;
    made.data = buffer.data(), made.held = place, made.height = height_, made.width = width_, made.channels = channels;
    return true;
}

bool Session::begin(int slot, const FeatureMap& map, Place place, Map& begun, Failure& failure) {
    if (is_stored()) return temporary(slot, map.channels, place, begun, failure);
    begun = whole_map(map.memory, height_, width_, map.channels);
    return true;
}

template <class Call>
bool Session::transfer(const FeatureMap& map, const Map& part, const Call& call) const {
    const Place& place = part.held;
    const int64_t pixel = map.channels * static_cast<int64_t>(sizeof(float));
    const int64_t rows = place.width() == width_ ? place.height() : 1;
    for (int64_t y = place.top; y < place.bottom; y += rows) {
        const int64_t offset = map.offset + (y * width_ + place.left) * pixel;
        if (call(offset, rows * place.width() * pixel, part.at(y, place.left))) return false;
    }
    return true;
}

bool Session::open(int slot, const FeatureMap& map, Place place, Map& opened, Failure& failure) {
    if (!begin(slot, map, place, opened, failure)) return false;
    if (!is_stored()) return true;
    const auto read = [this](int64_t offset, int64_t num_bytes, float* values) {
        return storage_->read(storage_->user, offset, num_bytes, values);
    };
    return transfer(map, opened, read) || failure.set(ESCSR_CALLBACK, "the storage could not give back features");
}

bool Session::close(const FeatureMap& map, const Map& written, Failure& failure) {
    if (!is_stored()) return true;
    const auto write = [this](int64_t offset, int64_t num_bytes, const float* values) {
        return storage_->write(storage_->user, offset, num_bytes, values);
    };
    return transfer(map, written, write) || failure.set(ESCSR_CALLBACK, "the storage could not take features");
}

}  // namespace escsr
