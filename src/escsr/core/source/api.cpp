// The C interface: checks what callers give before any other part of the core sees it.
#include <stdlib.h>

#include "container.h"
#include "network.h"
#include "run.h"

using escsr::Failure;

namespace {

constexpr int64_t MOST_PIXELS_PER_SIDE = INT32_MAX;
constexpr int64_t MOST_PIXELS = int64_t{1} << 40;  // so that no size in bytes leaves int64_t
constexpr int32_t MOST_THREADS = 1024;
constexpr size_t MOST_STRUCTURE_BYTES = 4096;

// Bytes of the character in UTF-8 that begins here; 0 for none, or a control character.
size_t character_bytes(const char* text) {
    const unsigned char* bytes = reinterpret_cast<const unsigned char*>(text);
    if (bytes[0] < 0x80) return bytes[0] >= 0x20 && bytes[0] != 0x7f;
    if (bytes[0] < 0xc2 || bytes[0] > 0xf4) return 0;
    const size_t length = bytes[0] < 0xe0 ? 2 : bytes[0] < 0xf0 ? 3 : 4;
    for (size_t i = 1; i < length; ++i)
        if ((bytes[i] & 0xc0) != 0x80) return 0;  // the final zero is none, so this stays inside
    const bool is_control = bytes[0] == 0xc2 && bytes[1] < 0xa0;
    const bool is_too_long = (bytes[0] == 0xe0 && bytes[1] < 0xa0) || (bytes[0] == 0xf0 && bytes[1] < 0x90);
    const bool is_no_point = (bytes[0] == 0xed && bytes[1] > 0x9f) || (bytes[0] == 0xf4 && bytes[1] > 0x8f);
    return is_control || is_too_long || is_no_point ? 0 : length;
}

// The message as one line of UTF-8: it may quote names from a damaged file, and may have been cut within a character.
escsr_status report(const Failure& failure, escsr_error* error) {
    if (!error) return failure.status;
    memset(error, 0, sizeof(*error));
    error->status = failure.status;
    char* to = error->message;
    for (const char* from = failure.message; *from;) {
        const size_t length = character_bytes(from);
        if (length > 0) {
            memcpy(to, from, length);
        } else {
            *to = '?';
        }
        to += length > 0 ? length : 1;
        from += length > 0 ? length : 1;
    }
    return failure.status;
}

// A structure that begins with `size`: what an older caller does not know keeps its value, what a newer one adds is not
// looked at.
template <class Structure>
bool read_structure(const Structure* given, const char* name, Structure& structure, Failure& failure) {
    const bool is_possible = given->size >= sizeof(given->size) && given->size <= MOST_STRUCTURE_BYTES;
    if (!is_possible || given->size % alignof(Structure) != 0)
        return failure.set(ESCSR_INVALID_ARGUMENT, "%s.size is %.0f; set it to sizeof(%s).", name,
                           static_cast<double>(given->size), name);
    memcpy(&structure, given, escsr::least(given->size, sizeof(Structure)));
    structure.size = sizeof(Structure);
    return true;
}

template <class Structure>
void write_structure(const Structure& structure, Structure* to) {
    const size_t size = to->size, known = escsr::least(size, sizeof(Structure));
    memcpy(to, &structure, known);
    memset(reinterpret_cast<char*>(to) + known, 0, size - known);
    to->size = size;
}

bool require(const void* pointer, const char* name, Failure& failure) {
    return pointer || failure.set(ESCSR_INVALID_ARGUMENT, "%s is NULL.", name);
}

bool require_floats(const float* values, const char* name, Failure& failure) {
    if (!require(values, name, failure)) return false;
    return reinterpret_cast<uintptr_t>(values) % sizeof(float) == 0 ||
           failure.set(ESCSR_INVALID_ARGUMENT, "%s does not lie on a boundary of 4 bytes.", name);
}

bool require_size(const char* what, int64_t height, int64_t width, Failure& failure) {
    if (height >= 1 && width >= 1 && height <= MOST_PIXELS_PER_SIDE && width <= MOST_PIXELS_PER_SIDE &&
        height <= MOST_PIXELS / width)
        return true;
    const bool is_small = height < 1 || width < 1;
    return failure.set(ESCSR_INVALID_ARGUMENT, "The %s is %.0fx%.0f pixels; %s.", what, static_cast<double>(width),
                       static_cast<double>(height),
                       is_small ? "both sides need at least 1" : "a side may have 2^31 - 1 and the whole 2^40 at most");
}

bool require_axis(const escsr_axis& axis, const char* name, Failure& failure) {
    if (axis.length < 1 || axis.length > MOST_PIXELS_PER_SIDE || axis.output_length < 1 ||
        axis.output_length > MOST_PIXELS_PER_SIDE)
        return failure.set(ESCSR_INVALID_ARGUMENT, "%s: a whole image of %.0f pixels cannot become one of %.0f.", name,
                           static_cast<double>(axis.length), static_cast<double>(axis.output_length));
    // An image that was extended at its borders begins before its first pixel, or ends after its last.
    const int64_t far = 2 * MOST_PIXELS_PER_SIDE;
    if (axis.start < -far || axis.start > far || axis.output_start < -far || axis.output_start > far)
        return failure.set(ESCSR_INVALID_ARGUMENT, "%s: parts that begin at pixel %.0f and %.0f are too far away.", name,
                           static_cast<double>(axis.start), static_cast<double>(axis.output_start));
    return true;
}

// What every run is given.
struct Sizes {
    int64_t height, width, output_height, output_width;
};

bool require_axes(const escsr_network& network, const escsr_options& options, Failure& failure) {
    if (!options.rows && !options.columns) return true;
    if (!options.rows || !options.columns)
        return failure.set(ESCSR_INVALID_ARGUMENT, "Of escsr_options.rows and columns only one is given.");
    if (!network.configuration.is_any_size())
        return failure.set(ESCSR_INVALID_ARGUMENT,
                           "escsr_options.rows and columns are for networks whose results may have any size.");
    return require_axis(*options.rows, "escsr_options.rows", failure) &&
           require_axis(*options.columns, "escsr_options.columns", failure);
}

bool require_sizes(const escsr_network& network, const Sizes& sizes, Failure& failure) {
    if (!require_size("image", sizes.height, sizes.width, failure)) return false;
    if (!require_size("result", sizes.output_height, sizes.output_width, failure)) return false;
    const int64_t scale = network.configuration.scale;
    if (network.configuration.is_any_size() ||
        (sizes.output_height == scale * sizes.height && sizes.output_width == scale * sizes.width))
        return true;
    return failure.set(ESCSR_INVALID_ARGUMENT,
                       "The result is to have %.0fx%.0f pixels, but this network enlarges by %d, to %.0fx%.0f.",
                       static_cast<double>(sizes.output_width), static_cast<double>(sizes.output_height),
                       static_cast<int>(scale), static_cast<double>(scale * sizes.width),
                       static_cast<double>(scale * sizes.height));
}

bool read_options(const escsr_network* network, const escsr_options* given, const Sizes& sizes, escsr_options& options,
                  Failure& failure) {
    options = {sizeof(escsr_options), 0, nullptr, nullptr, nullptr, nullptr};
    if (!require(network, "network", failure)) return false;
    if (given && !read_structure(given, "escsr_options", options, failure)) return false;
    if (options.num_threads < 0 || options.num_threads > MOST_THREADS)
        return failure.set(ESCSR_INVALID_ARGUMENT,
                           "escsr_options.num_threads is %d; it must be 0, for one on each processor, or up to %d.",
                           static_cast<int>(options.num_threads), static_cast<int>(MOST_THREADS));
    return require_sizes(*network, sizes, failure) && require_axes(*network, options, failure);
}

bool require_limit(int64_t limit_bytes, Failure& failure) {
    return limit_bytes >= 0 ||
           failure.set(ESCSR_INVALID_ARGUMENT, "limit_bytes is %.0f; it must be 0, for no limit, or more.",
                       static_cast<double>(limit_bytes));
}

bool read_rows(const escsr_rows* given, escsr_rows& rows, Failure& failure) {
    rows = {sizeof(escsr_rows), nullptr, nullptr};
    if (!require(given, "rows", failure) || !read_structure(given, "escsr_rows", rows, failure)) return false;
    return rows.read || failure.set(ESCSR_INVALID_ARGUMENT, "escsr_rows.read is NULL.");
}

bool require_band(int64_t top, int64_t bottom, int64_t height, Failure& failure) {
    return (top >= 0 && top < bottom && bottom <= height) ||
           failure.set(ESCSR_INVALID_ARGUMENT, "Rows %.0f to %.0f are not within a result of %.0f.",
                       static_cast<double>(top), static_cast<double>(bottom), static_cast<double>(height));
}

// has_callbacks: false where features stay in memory.
bool read_storage(const escsr_storage* given, escsr_storage& storage, bool& has_callbacks, Failure& failure) {
    storage = {sizeof(escsr_storage), nullptr, nullptr, nullptr};
    if (given && !read_structure(given, "escsr_storage", storage, failure)) return false;
    has_callbacks = storage.read && storage.write;
    return has_callbacks || (!storage.read && !storage.write) ||
           failure.set(ESCSR_INVALID_ARGUMENT, "escsr_storage needs both callbacks, read and write, or none.");
}

// Before parts of a network are made that no array is there for.
bool require_depth(const escsr::Configuration& configuration, const escsr::Tensors& tensors, Failure& failure) {
    int64_t layers = configuration.num_blocks * (1 + configuration.num_conv_layers);
    if (configuration.is_any_size()) layers += configuration.texture_mlp_layers;
    return layers <= tensors.count() ||
           failure.set(ESCSR_MISSING_WEIGHTS,
                       "The network has %.0f layers by its configuration, and only %.0f arrays are there.",
                       static_cast<double>(layers), static_cast<double>(tensors.count()));
}

bool prepare(escsr_network& network, const escsr::Tensors& tensors, Failure& failure) {
    const int64_t length = static_cast<int64_t>(strlen(network.json.data()));
    if (!network.configuration.parse(network.json.data(), length, failure)) return false;
    if (!require_depth(network.configuration, tensors, failure)) return false;
    network.kernels = escsr::choose_kernels(failure);
    if (!network.kernels) return false;
    network.num_parameters = tensors.num_parameters();
    return network.body.prepare(network.configuration, tensors, *network.kernels, failure) &&
           network.head.prepare(network.configuration, tensors, *network.kernels, failure) &&
           tensors.require_all_used(failure);
}

// json: taken over.
bool open_network(const escsr::Tensors& tensors, escsr::Buffer<char>& json, escsr_network** opened, Failure& failure) {
    void* memory = escsr::allocate_bytes(sizeof(escsr_network));
    if (!memory) return failure.out_of_memory(sizeof(escsr_network));
    escsr_network* network = new (EscsrPlacement{memory}) escsr_network();
    network->json = static_cast<escsr::Buffer<char>&&>(json);
    if (!prepare(*network, tensors, failure)) {
        escsr_close(network);
        return false;
    }
    *opened = network;
    return true;
}

bool add_array(const escsr_array& array, escsr::Tensors& tensors, Failure& failure) {
    if (!require(array.name, "The name of an array", failure)) return false;
    const bool is_scalar = array.num_dimensions == 0;
    if (!array.data || !array.type || (!array.shape && !is_scalar))
        return failure.set(ESCSR_INVALID_ARGUMENT, "%.200s: its data, type or shape is NULL.", array.name);
    if (tensors.add(array.name, array.type, array.data, array.num_dimensions, array.shape, failure)) return true;
    if (failure.status == ESCSR_INVALID_FILE) failure.status = ESCSR_INVALID_ARGUMENT;
    return false;
}

bool open_arrays(const char* configuration, const escsr_array* arrays, size_t num_arrays, escsr_network** network,
                 Failure& failure) {
    escsr::Tensors tensors;
    escsr::Buffer<char> json;
    if (!require(configuration, "configuration", failure)) return false;
    if (num_arrays > 0 && !require(arrays, "arrays", failure)) return false;
    for (size_t i = 0; i < num_arrays; ++i)
        if (!add_array(arrays[i], tensors, failure)) return false;
    const size_t json_bytes = strlen(configuration) + 1;
    if (!json.allocate(static_cast<int64_t>(json_bytes), failure)) return false;
    memcpy(json.data(), configuration, json_bytes);
    return open_network(tensors, json, network, failure);
}

bool open_file(const void* bytes, size_t num_bytes, escsr_network** network, Failure& failure) {
    escsr::Tensors tensors;
    escsr::Buffer<char> json;
    return require(bytes, "bytes", failure) && escsr::read_container(bytes, num_bytes, tensors, json, failure) &&
           open_network(tensors, json, network, failure);
}

}  // namespace

int32_t escsr_interface_version(void) { return ESCSR_INTERFACE_VERSION; }

escsr_status escsr_open(const void* bytes, size_t num_bytes, escsr_network** network, escsr_error* error) {
    Failure failure;
    if (require(network, "network", failure)) {
        *network = nullptr;
        open_file(bytes, num_bytes, network, failure);
    }
    return report(failure, error);
}

escsr_status escsr_open_arrays(const char* configuration, const escsr_array* arrays, size_t num_arrays,
                               escsr_network** network, escsr_error* error) {
    Failure failure;
    if (require(network, "network", failure)) {
        *network = nullptr;
        open_arrays(configuration, arrays, num_arrays, network, failure);
    }
    return report(failure, error);
}

void escsr_close(escsr_network* network) {
    if (!network) return;
    network->~escsr_network();
    escsr::free_bytes(network);
}

escsr_status escsr_describe(const escsr_network* network, escsr_description* description) {
    Failure failure;
    escsr_description made = {};
    if (!require(network, "network", failure) || !require(description, "description", failure) ||
        !read_structure(description, "escsr_description", made, failure))
        return failure.status;
    const escsr::Configuration& configuration = network->configuration;
    made.scale = static_cast<int32_t>(configuration.scale);
    made.any_size = configuration.is_any_size();
    made.window_pixels = static_cast<int32_t>(configuration.window_pixels());
    made.num_parameters = network->num_parameters;
    made.configuration = network->json.data();
    made.cpu = network->kernels->name;
    write_structure(made, description);
    return ESCSR_OK;
}

escsr_status escsr_run(const escsr_network* network, const float* image, int64_t height, int64_t width, float* result,
                       int64_t output_height, int64_t output_width, const escsr_options* given, escsr_error* error) {
    Failure failure;
    escsr_options options;
    if (read_options(network, given, {height, width, output_height, output_width}, options, failure) &&
        require_floats(image, "image", failure) && require_floats(result, "result", failure))
        escsr::run_whole(*network, image, height, width, result, output_height, output_width, options, failure);
    return report(failure, error);
}

escsr_status escsr_plan(const escsr_network* network, int64_t height, int64_t width, int64_t output_height,
                        int64_t output_width, const escsr_options* given, int64_t limit_bytes, int32_t with_storage,
                        escsr_needs* needs, escsr_error* error) {
    Failure failure;
    escsr_options options;
    escsr_needs made = {};
    if (read_options(network, given, {height, width, output_height, output_width}, options, failure) &&
        require_limit(limit_bytes, failure) && require(needs, "needs", failure) &&
        read_structure(needs, "escsr_needs", made, failure) &&
        escsr::plan_run(*network, height, width, output_height, output_width, options, limit_bytes, with_storage != 0,
                        made, failure))
        write_structure(made, needs);
    return report(failure, error);
}

escsr_status escsr_begin(const escsr_network* network, int64_t height, int64_t width, int64_t output_height,
                         int64_t output_width, const escsr_rows* given_rows, const escsr_storage* given_storage,
                         int64_t limit_bytes, const escsr_options* given, escsr_job** job, escsr_error* error) {
    Failure failure;
    escsr_options options;
    escsr_rows rows;
    escsr_storage storage;
    bool has_storage;
    if (!require(job, "job", failure)) return report(failure, error);
    *job = nullptr;
    if (read_options(network, given, {height, width, output_height, output_width}, options, failure) &&
        require_limit(limit_bytes, failure) && read_rows(given_rows, rows, failure) &&
        read_storage(given_storage, storage, has_storage, failure))
        *job = escsr::begin_job(*network, height, width, output_height, output_width, rows,
                                has_storage ? &storage : nullptr, limit_bytes, options, failure);
    return report(failure, error);
}

escsr_status escsr_make_rows(escsr_job* job, int64_t top, int64_t bottom, float* rows, escsr_error* error) {
    Failure failure;
    if (require(job, "job", failure) && require_floats(rows, "rows", failure) &&
        require_band(top, bottom, escsr::output_height_of(*job), failure))
        escsr::make_rows(*job, top, bottom, rows, failure);
    return report(failure, error);
}

void escsr_end(escsr_job* job) { escsr::end_job(job); }
