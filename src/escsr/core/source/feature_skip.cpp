#include "feature_skip.h"

namespace escsr {

namespace {

constexpr int64_t SIDE = 7, REACH = SIDE / 2;
// Parts are wide enough for their borders to cost little, and high enough for the rows above and below.
constexpr int64_t PART_ROWS = 32, PART_COLUMNS = 64;

}  // namespace

bool FeatureSkip::prepare(const Configuration& configuration, const Tensors& tensors, int64_t lanes, Failure& failure) {
    configuration_ = configuration;
    const int64_t channels = 3 * configuration.unshuffle * configuration.unshuffle;
    const int64_t dim = configuration.dim, expanded = 2 * dim, padded = round_up(expanded, lanes);
    Matrix expand, reduce;
    return expand.of_convolution(tensors, "feature_skip.expand", channels, expanded, failure) &&
           expand.ready(channels, padded, expand_weight_, expand_bias_, failure) &&
           depthwise_weights(tensors, "feature_skip.depthwise", expanded, SIDE, lanes, depthwise_weight_,
                             depthwise_bias_, failure) &&
           reduce.of_convolution(tensors, "feature_skip.reduce", expanded, dim, failure) &&
           reduce.ready(padded, round_up(dim, lanes), reduce_weight_, reduce_bias_, failure);
}

FeatureSkipTask FeatureSkip::task(const Map& image, const Map& features) const {
    return {image,
            expand_weight_.data(),
            expand_bias_.data(),
            depthwise_weight_.data(),
            depthwise_bias_.data(),
            reduce_weight_.data(),
            reduce_bias_.data(),
            features,
            expand_bias_.size()};
}

int64_t FeatureSkip::scratch(const Kernels& kernels) const {
    Map image;
    image.channels = expand_weight_.size() / most<int64_t>(expand_bias_.size(), 1);
    return kernels.heads->feature_skip_scratch(task(image, Map()));
}

bool FeatureSkip::add(Session& session, ImageSource& image, Place core, const Map& features, Failure& failure) const {
    const Kernels& kernels = session.kernels();
    Map entered;
    const Place around = core.grown(REACH, features.height, features.width);
    if (!image.enter(configuration_, around, entered, failure)) return false;
    if (!session.workers().reserve(scratch(kernels), failure)) return false;
    session.workers().progress().begin(work() * static_cast<double>(core.num_pixels()));
    const FeatureSkipTask task = this->task(entered, features);
    const int64_t columns = divide_up(core.width(), PART_COLUMNS), rows = divide_up(core.height(), PART_ROWS);
    const auto run = [&](int64_t item, float* scratch) {
        const int64_t top = core.top + item / columns * PART_ROWS, left = core.left + item % columns * PART_COLUMNS;
        kernels.heads->add_feature_skip(
            task, {top, least(top + PART_ROWS, core.bottom), left, least(left + PART_COLUMNS, core.right)}, scratch);
    };
    return session.workers().run(rows * columns, run, failure);
}

}  // namespace escsr
