#include "run.h"

namespace escsr {

namespace {

constexpr int64_t FLOAT = sizeof(float);
constexpr int64_t LARGEST_CORE = 256;  // rows of one, in storage: higher ones save little

// How a run is cut, and what it takes.
struct Cutting {
    int64_t height = 0, width = 0;            // of the features
    int64_t core_height = 0, core_width = 0;  // of the body's cores
    int64_t band_rows = 0;                    // of the result, a multiple of the scale
    bool is_stored = false;
    int64_t memory_bytes = 0, storage_bytes = 0;
};

struct Sizes {
    int64_t height, width, output_height, output_width;
};

int32_t threads_of(const escsr_options& options) {
    return options.num_threads > 0 ? options.num_threads : usable_processors();
}

Axes axes_of(const escsr_options& options, const Sizes& sizes) {
    Axes axes = {{sizes.height, sizes.output_height, 0, 0}, {sizes.width, sizes.output_width, 0, 0}};
    if (options.rows) axes.rows = *options.rows;
    if (options.columns) axes.columns = *options.columns;
    return axes;
}

HeadTask head_task(const escsr_network& network, const Sizes& sizes, const escsr_options& options) {
    const int64_t u = network.configuration.unshuffle;
    HeadTask task;
    task.features.height = divide_up(sizes.height, u), task.features.width = divide_up(sizes.width, u);
    task.features.channels = round_up(network.configuration.dim, network.kernels->lanes);
    task.image.height = sizes.height, task.image.width = sizes.width;
    task.result.height = sizes.output_height, task.result.width = sizes.output_width;
    task.axes = axes_of(options, sizes);
    return task;
}

// Bytes of a band of the result with what it is made from, beside whole maps of features.
int64_t band_bytes(const escsr_network& network, const HeadTask& task, int64_t rows, bool is_stored) {
    const Place band = {0, least(rows, task.result.height), 0, task.result.width};
    // In the middle of the result bands need the most around them.
    const int64_t middle = most<int64_t>(0, (task.result.height - band.height()) / 2);
    const Place place = {middle, middle + band.height(), 0, band.right};
    const Place needed = network.head.needed(task, place), image = network.head.needed_image(task, place);
    int64_t bytes = 3 * FLOAT * (band.num_pixels() + image.height() * task.image.width);
    if (is_stored) bytes += FLOAT * needed.height() * task.features.width * task.features.channels;
    return bytes;
}

// What a run takes beside maps and bands.
int64_t scratch_bytes(const escsr_network& network, const HeadTask& task, int32_t threads) {
    int64_t height = 0, width = 0;
    network.head.best_part(task, height, width);
    const int64_t floats = most(network.body.scratch(), network.head.scratch(task, height, width));
    return FLOAT * floats * threads + (1 << 20);
}

int64_t core_bytes(const escsr_network& network, const Cutting& cutting) {
    const int64_t margin = 2 * network.body.largest_margin();
    const int64_t u = network.configuration.unshuffle;
    const int64_t pixels = least(cutting.core_height + margin, cutting.height) * least(cutting.core_width + margin, cutting.width);
    const int64_t rows = least(cutting.core_height + margin, cutting.height) * u;
    return FLOAT * (pixels * (network.body.floats_per_core_pixel() + 3 * u * u) + 3 * rows * cutting.width * u);
}

// Rows of the result at a time, within a budget if a few rows are: so many that the processor's cache holds what follows
// them, and not so few that parts look around more than they make.
int64_t choose_band(const escsr_network& network, const HeadTask& task, int64_t budget, bool is_stored) {
    constexpr int64_t MOST_BYTES = 16 << 20, MOST_STEPS = 64, LEAST_STEPS = 4;
    const int64_t step = network.configuration.is_any_size() ? 1 : network.configuration.inner_scale();
    int64_t rows = round_up(least(task.result.height, MOST_STEPS * step), step);
    while (rows > LEAST_STEPS * step && band_bytes(network, task, rows, is_stored) > least(budget, MOST_BYTES))
        rows = most(LEAST_STEPS * step, round_up(rows * 3 / 4 - step / 2, step));
    return rows;
}

// Whole maps in memory where the limit allows them, else parts of maps that lie in storage.
Cutting cut(const escsr_network& network, const Sizes& sizes, const escsr_options& options, int64_t limit,
            bool with_storage) {
    const HeadTask task = head_task(network, sizes, options);
    const int64_t pixels = task.features.height * task.features.width, window = network.configuration.window_size;
    const int64_t scratch = scratch_bytes(network, task, threads_of(options));
    const int64_t entered = 3 * FLOAT * sizes.height * sizes.width;
    Cutting cutting;
    cutting.height = cutting.core_height = task.features.height;
    cutting.width = cutting.core_width = task.features.width;
    const int64_t fixed = scratch + entered + FLOAT * pixels * network.body.floats_per_pixel(false);
    cutting.band_rows = choose_band(network, task, limit > 0 ? most<int64_t>(limit - fixed, 0) : INT64_MAX, false);
    cutting.memory_bytes = fixed + band_bytes(network, task, cutting.band_rows, false);
    if (!with_storage || limit <= 0 || cutting.memory_bytes <= limit) return cutting;
    cutting.is_stored = true;
    cutting.storage_bytes = FLOAT * pixels * network.body.floats_per_pixel(true);
    const int64_t budget = most<int64_t>(limit - scratch, 0);
    cutting.core_height = round_up(least(most(window, LARGEST_CORE), cutting.height), window);
    cutting.core_width = round_up(cutting.width, window);
    // Cores of whole rows are read and written at once, and so are kept as long as they are high enough.
    const int64_t high_enough = round_up(most<int64_t>(window, 32), window);
    while (core_bytes(network, cutting) > budget && (cutting.core_height > window || cutting.core_width > window)) {
        const bool is_flat = cutting.core_height <= (cutting.core_width > window ? high_enough : window);
        int64_t& length = is_flat ? cutting.core_width : cutting.core_height;
        length = most(window, length / window * 3 / 4 * window);
    }
    cutting.band_rows = choose_band(network, task, budget, true);
    // Parts of maps are given back before the first band.
    const int64_t band = band_bytes(network, task, cutting.band_rows, true);
    cutting.memory_bytes = scratch + most(core_bytes(network, cutting), band);
    return cutting;
}

// Makes bands of the result from features.
class HeadRun {
   public:
    HeadRun(const escsr_network& network, Session& session, ImageSource& image, const FeatureMap& features,
            const HeadTask& task)
        : network_(network), session_(session), image_(image), features_(features), task_(task) {}

    // Rows [top, bottom) of the result, into task.result, which holds them.
    bool make(const ResultRows& result, int64_t top, int64_t bottom, Failure& failure) {
        task_.result = result;
        const Place band = {top, bottom, 0, result.width};
        const Place image = network_.head.needed_image(task_, band);
        if (image.height() > 0 && !image_.rows(image.top, image.bottom, task_.image, failure)) return false;
        int64_t more = 0;
        do {
            Place needed = network_.head.needed(task_, band).grown(more, session_.height(), session_.width());
            needed.left = 0, needed.right = session_.width();
            if (!session_.open(0, features_, needed, task_.features, failure)) return false;
            const int64_t missing = make_parts(band, failure);
            if (missing < 0) return false;
            if (missing == 0) return true;
            more += missing;
        } while (true);
    }

   private:
    // How many rows of features are missing; -1 after a failure.
    int64_t make_parts(const Place& band, Failure& failure) {
        int64_t height = 0, width = 0;
        network_.head.best_part(task_, height, width);
        if (!session_.workers().reserve(network_.head.scratch(task_, height, width), failure)) return -1;
        const int64_t columns = divide_up(band.width(), width), rows = divide_up(band.height(), height);
        int64_t missing = 0;
        int32_t is_broken = 0;
        session_.workers().progress().begin(network_.head.work(task_, band));
        const auto work = [&](int64_t item, float* scratch) {
            const int64_t top = band.top + item / columns * height, left = item % columns * width;
            const Place part = {top, least(top + height, band.bottom), left, least(left + width, band.right)};
            const int64_t more = network_.head.make(task_, part, scratch);
            int64_t known = __atomic_load_n(&missing, __ATOMIC_RELAXED);
            while (more > known && !__atomic_compare_exchange_n(&missing, &known, more, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
            }
            if (!more && !is_finite(part)) __atomic_store_n(&is_broken, 1, __ATOMIC_RELAXED);
        };
        if (!session_.workers().run(rows * columns, work, failure)) return -1;
        if (is_broken) {
            failure.set(ESCSR_NOT_FINITE, "the network gives NaN or infinite values");
            return -1;
        }
        return missing;
    }

    bool is_finite(const Place& part) const {
        float sum = 0;  // x - x is NaN for what is not finite
        for (int64_t channel = 0; channel < 3; ++channel)
            for (int64_t y = part.top; y < part.bottom; ++y) {
                const float* row = task_.result.row(channel, y);
                for (int64_t x = part.left; x < part.right; ++x) sum += row[x] - row[x];
            }
        return sum == 0;
    }

    const escsr_network& network_;
    Session& session_;
    ImageSource& image_;
    const FeatureMap& features_;
    HeadTask task_;
};

}  // namespace

bool run_whole(const escsr_network& network, const float* image, int64_t height, int64_t width, float* result,
               int64_t output_height, int64_t output_width, const escsr_options& options, Failure& failure) {
    const Sizes sizes = {height, width, output_height, output_width};
    HeadTask task = head_task(network, sizes, options);
    Progress progress(options.progress, options.user);
    Workers workers(threads_of(options), progress);
    Session session(*network.kernels, workers, nullptr);
    session.set_size(task.features.height, task.features.width, task.features.height, task.features.width);
    const Place all = {0, output_height, 0, output_width};
    progress.set_total(network.body.work(task.features.height, task.features.width) + network.head.work(task, all));
    ImageSource source(image, height, width);
    FeatureMap features;
    if (!network.body.run(session, source, features, failure)) return false;
    ResultRows rows;
    rows.data = result, rows.top = 0, rows.bottom = rows.height = output_height, rows.width = output_width;
    return HeadRun(network, session, source, features, task).make(rows, 0, output_height, failure);
}

}  // namespace escsr

// What escsr_job is.
struct escsr_job {
    escsr_job(const escsr_network& network, const escsr::Sizes& sizes, const escsr_options& options,
              const escsr_rows& rows, const escsr_storage* storage)
        : network(network), rows(rows), storage(storage ? *storage : escsr_storage()),
          task(escsr::head_task(network, sizes, options)), progress(options.progress, options.user),
          workers(escsr::threads_of(options), progress),
          session(*network.kernels, workers, storage ? &this->storage : nullptr), image(this->rows, sizes.height, sizes.width) {}

    const escsr_network& network;
    const escsr_rows rows;  // copies: the caller's structures may be gone after escsr_begin
    const escsr_storage storage;
    const escsr::HeadTask task;
    escsr::Progress progress;
    escsr::Workers workers;
    escsr::Session session;
    escsr::ImageSource image;
    escsr::FeatureMap features;
};

namespace escsr {

escsr_job* begin_job(const escsr_network& network, int64_t height, int64_t width, int64_t output_height,
                     int64_t output_width, const escsr_rows& rows, const escsr_storage* storage, int64_t limit_bytes,
                     const escsr_options& options, Failure& failure) {
    const Sizes sizes = {height, width, output_height, output_width};
    const Cutting cutting = cut(network, sizes, options, limit_bytes, storage != nullptr);
    void* memory = allocate_bytes(sizeof(escsr_job));
    if (!memory) {
        failure.out_of_memory(sizeof(escsr_job));
        return nullptr;
    }
    escsr_job* job =
        new (EscsrPlacement{memory}) escsr_job(network, sizes, options, rows, cutting.is_stored ? storage : nullptr);
    job->session.set_size(cutting.height, cutting.width, cutting.core_height, cutting.core_width);
    const Place all = {0, output_height, 0, output_width};
    job->progress.set_total(network.body.work(cutting.height, cutting.width) + network.head.work(job->task, all));
    if (network.body.run(job->session, job->image, job->features, failure)) {
        job->session.keep_only(job->features);
        return job;
    }
    end_job(job);
    return nullptr;
}

bool make_rows(escsr_job& job, int64_t top, int64_t bottom, float* rows, Failure& failure) {
    ResultRows result;
    result.data = rows, result.top = top, result.bottom = bottom;
    result.height = job.task.result.height, result.width = job.task.result.width;
    return HeadRun(job.network, job.session, job.image, job.features, job.task).make(result, top, bottom, failure);
}

void end_job(escsr_job* job) {
    if (!job) return;
    job->~escsr_job();
    free_bytes(job);
}

int64_t output_height_of(const escsr_job& job) { return job.task.result.height; }

bool plan_run(const escsr_network& network, int64_t height, int64_t width, int64_t output_height, int64_t output_width,
              const escsr_options& options, int64_t limit_bytes, bool with_storage, escsr_needs& needs, Failure&) {
    const Cutting cutting = cut(network, {height, width, output_height, output_width}, options, limit_bytes, with_storage);
    needs.memory_bytes = cutting.memory_bytes, needs.storage_bytes = cutting.storage_bytes;
    needs.band_rows = cutting.band_rows;
    return true;
}

}  // namespace escsr
