// The maps of features of one run: in memory whole, or in the caller's storage and read and written part by part.
#pragma once
#include "kernels.h"
#include "threads.h"

namespace escsr {

// A map that outlives a stage.
struct FeatureMap {
    int64_t channels = 0;   // padded
    float* memory = nullptr;  // whole, or
    int64_t offset = 0;     // where it begins in storage, in bytes
};

// Where maps lie, how they are cut, and who works on them.
class Session {
   public:
    Session(const Kernels& kernels, Workers& workers, const escsr_storage* storage)
        : kernels_(kernels), workers_(workers), storage_(storage) {}

    // The size of all maps, and of the cores that they are cut into: a stage works on one core after another. Multiples
    // of the window, or the whole.
    void set_size(int64_t height, int64_t width, int64_t core_height, int64_t core_width) {
        height_ = height, width_ = width, core_height_ = core_height, core_width_ = core_width;
    }
    bool make(FeatureMap& map, int64_t channels, Failure& failure);

    const Kernels& kernels() const { return kernels_; }
    Workers& workers() { return workers_; }
    int64_t height() const { return height_; }
    int64_t width() const { return width_; }
    int64_t num_cores() const { return divide_up(height_, core_height_) * divide_up(width_, core_width_); }
    Place core(int64_t number) const;
    bool is_stored() const { return storage_ != nullptr; }

    // A part of a map to read. Slots are buffers, 0 to NUM_SLOTS - 1; what was in one is lost.
    bool open(int slot, const FeatureMap& map, Place place, Map& opened, Failure& failure);
    // A part of a map to write; `close` brings it where it belongs.
    bool begin(int slot, const FeatureMap& map, Place place, Map& begun, Failure& failure);
    bool close(const FeatureMap& map, const Map& written, Failure& failure);
    // Give back the memory of slots, and of all maps but one.
    void keep_only(const FeatureMap& map) {
        for (Buffer<float>& slot : slots_) slot = Buffer<float>();
        for (int64_t i = 0; i < memory_.size(); ++i)
            if (memory_[i].data() != map.memory) memory_[i] = Buffer<float>();
    }
    // A part of the size of a place that is nowhere else.
    bool temporary(int slot, int64_t channels, Place place, Map& made, Failure& failure);

    static constexpr int NUM_SLOTS = 6;

   private:
    // Between a part of a map and storage: by as few calls as its rows allow.
    template <class Call>
    bool transfer(const FeatureMap& map, const Map& part, const Call& call) const;

    const Kernels& kernels_;
    Workers& workers_;
    const escsr_storage* storage_;
    int64_t height_ = 0, width_ = 0, core_height_ = 1, core_width_ = 1;
    int64_t storage_end_ = 0;
    Objects<Buffer<float>> memory_;  // of whole maps
    int64_t num_maps_ = 0;
    Buffer<float> slots_[NUM_SLOTS];
};

}  // namespace escsr
