// Heads that sample features at learned places: dysample and lda.
#pragma once
#include "head_kernels.h"
#include "heads.h"

namespace escsr {

// Narrows features where that is asked for: a 3x3 convolution and a leaky ReLU.
struct Narrowing {
    const Kernels* kernels = nullptr;
    WinogradWeights weights;  // none where the features stay as they are
    int64_t channels = 0;     // of the result, padded

    bool prepare(const Configuration& configuration, const Tensors& tensors, const Kernels& kernels, Failure& failure);
    bool is_none() const { return weights.inputs == 0; }
    int64_t reach() const { return is_none() ? 0 : 1; }
    Place needed(const Map& features, Place place) const {
        return place.grown(reach(), features.height, features.width);
    }
    int64_t scratch() const;
    double work() const { return static_cast<double>(weights.inputs * weights.outputs) * 36 / 16; }
    // A place of them: in `memory`, or in the features themselves.
    Map narrowed(const Map& features, Place place, float* memory, float* scratch) const;
};

// DySample: enlarge by sampling features bilinearly at learned places between pixels, then mix channels.
class DySampleHead {
   public:
    bool prepare(const Configuration& configuration, const Tensors& tensors, const Kernels& kernels, Failure& failure);
    Place needed(const HeadTask& task, Place result) const;
    Place needed_image(const HeadTask&, Place) const { return {0, 0, 0, 0}; }
    void best_part(const HeadTask& task, int64_t& height, int64_t& width) const;
    int64_t scratch(const HeadTask& task, int64_t height, int64_t width) const;
    double work(const HeadTask& task, Place result) const;
    int64_t make(const HeadTask& task, Place result, float* scratch) const;

   private:
    struct Memory;
    struct Room;
    DySampleTask task(const Map& features) const;
    Room room(int64_t height, int64_t width) const;
    Map mix(const Map& features, Place place, const Memory& memory) const;
    void sample_tiles(const HeadTask& task, DySampleTask sampling, Place core, Place result, Place reach,
                      const Room& room, const Memory& memory) const;

    const Kernels* kernels_ = nullptr;
    Narrowing narrowing_;
    int64_t scale_ = 1, groups_ = 1;
    int64_t places_ = 0, mixed_ = 0;  // see DySampleTask
    Buffer<float> weight_, bias_, centres_, mix_weight_;
    float mix_bias_[3] = {0, 0, 0};
};

// Local deformable attention: each pixel of the result attends to nine places of the features that it chooses, then a
// 3x3 convolution.
class LocalAttentionHead {
   public:
    bool prepare(const Configuration& configuration, const Tensors& tensors, const Kernels& kernels, Failure& failure);
    Place needed(const HeadTask& task, Place result) const;
    Place needed_image(const HeadTask&, Place) const { return {0, 0, 0, 0}; }
    void best_part(const HeadTask& task, int64_t& height, int64_t& width) const;
    int64_t scratch(const HeadTask& task, int64_t height, int64_t width) const;
    double work(const HeadTask& task, Place result) const;
    int64_t make(const HeadTask& task, Place result, float* scratch) const;

   private:
    bool prepare_projections(const Tensors& tensors, Failure& failure);
    bool prepare_offsets(const Tensors& tensors, Failure& failure);
    Place attended_place(const HeadTask& task, Place result) const;
    Place region(const HeadTask& task, Place result) const;
    LocalAttentionTask task() const;

    const Kernels* kernels_ = nullptr;
    Narrowing narrowing_;
    int64_t scale_ = 1, dim_ = 0;
    int64_t group_channels_ = 0;      // of queries and keys
    int64_t keys_ = 0, values_ = 0;   // channels of the maps of keys and values: both groups, each padded
    Buffer<float> query_weight_, query_bias_, key_weight_, key_bias_, table_;
    Buffer<float> depthwise_, norm_gain_, norm_bias_, to_offsets_, offset_bias_;
    Buffer<float> to_planes_;
    float planes_bias_[3] = {0, 0, 0};
};

}  // namespace escsr
