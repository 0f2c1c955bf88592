#include "heads.h"

#include "head_lte.h"
#include "head_sampling.h"
#include "head_stacks.h"

namespace escsr {

struct Head::Parts {
    Upsampler kind = Upsampler::pixelshuffledirect;
    StackHead stack;
    DySampleHead dysample;
    LocalAttentionHead local_attention;
    LocalTextureHead texture;

    // What `use` gives for the head of this kind. Each kind has the same members as Head.
    template <class Use>
    auto with(Use use) const {
        switch (kind) {
            case Upsampler::dysample: return use(dysample);
            case Upsampler::lda: return use(local_attention);
            case Upsampler::lte: return use(texture);
            default: return use(stack);
        }
    }
};

Head::~Head() {
    if (parts_) parts_->~Parts();
    free_bytes(parts_);
}

bool Head::prepare(const Configuration& configuration, const Tensors& tensors, const Kernels& kernels,
                   Failure& failure) {
    if (!parts_) {
        void* memory = allocate_bytes(sizeof(Parts));
        if (!memory) return failure.out_of_memory(sizeof(Parts));
        parts_ = new (EscsrPlacement{memory}) Parts();
    }
    parts_->kind = configuration.upsampler;
    switch (configuration.upsampler) {
        case Upsampler::dysample: return parts_->dysample.prepare(configuration, tensors, kernels, failure);
        case Upsampler::lda: return parts_->local_attention.prepare(configuration, tensors, kernels, failure);
        case Upsampler::lte: return parts_->texture.prepare(configuration, tensors, kernels, failure);
        default: return parts_->stack.prepare(configuration, tensors, kernels, failure);
    }
}

Place Head::needed(const HeadTask& task, Place result) const {
    return parts_->with([&](const auto& head) { return head.needed(task, result); });
}

Place Head::needed_image(const HeadTask& task, Place result) const {
    return parts_->with([&](const auto& head) { return head.needed_image(task, result); });
}

void Head::best_part(const HeadTask& task, int64_t& height, int64_t& width) const {
    parts_->with([&](const auto& head) { head.best_part(task, height, width); });
}

int64_t Head::scratch(const HeadTask& task, int64_t height, int64_t width) const {
    return parts_->with([&](const auto& head) { return head.scratch(task, height, width); });
}

double Head::work(const HeadTask& task, Place result) const {
    return parts_->with([&](const auto& head) { return head.work(task, result); });
}

int64_t Head::make(const HeadTask& task, Place result, float* scratch) const {
    return parts_->with([&](const auto& head) { return head.make(task, result, scratch); });
}

}  // namespace escsr
