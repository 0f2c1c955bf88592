// Opens each file named on its command line as a network, and runs an image and a job in it, again and again, and each
// time another allocation finds no memory. Fails where an answer is neither success nor ESCSR_OUT_OF_MEMORY, and where
// memory is left behind.
//
// To be linked with all sources of the core but platform.cpp, which it includes.
#define allocate_aligned allocate_aligned_really
#define free_aligned free_aligned_really
#include "platform.cpp"
#undef allocate_aligned
#undef free_aligned

#include <stdio.h>

namespace {
int64_t until_failure = INT64_MAX;  // allocations that still find memory
bool fails_once = false;            // and those after the one that does not
int64_t held = 0;                   // allocations that were not freed
}  // namespace

namespace escsr {

void* allocate_aligned(size_t bytes) {
    const int64_t left = __atomic_fetch_sub(&until_failure, 1, __ATOMIC_RELAXED);
    if (fails_once ? left == 0 : left <= 0) return nullptr;
    void* memory = allocate_aligned_really(bytes);
    if (memory) __atomic_fetch_add(&held, 1, __ATOMIC_RELAXED);
    return memory;
}

void free_aligned(void* memory) {
    __atomic_fetch_sub(&held, 1, __ATOMIC_RELAXED);
    free_aligned_really(memory);
}

}  // namespace escsr

namespace {

constexpr int64_t HEIGHT = 9, WIDTH = 8;
float image[3 * HEIGHT * WIDTH];

struct Opened {
    const char* bytes;
    size_t num_bytes;
    escsr_network* network;
    float* result;
    char* stored;
    int64_t scale;
};

int read_rows(void*, int64_t top, int64_t bottom, float* rows) {
    for (int64_t channel = 0; channel < 3; ++channel)
        for (int64_t y = top; y < bottom; ++y)
            memcpy(rows + (channel * (bottom - top) + y - top) * WIDTH, image + (channel * HEIGHT + y) * WIDTH,
                   sizeof(float) * WIDTH);
    return 0;
}

int read_stored(void* stored, int64_t offset, int64_t num_bytes, void* bytes) {
    memcpy(bytes, static_cast<char*>(stored) + offset, static_cast<size_t>(num_bytes));
    return 0;
}

int write_stored(void* stored, int64_t offset, int64_t num_bytes, const void* bytes) {
    memcpy(static_cast<char*>(stored) + offset, bytes, static_cast<size_t>(num_bytes));
    return 0;
}

escsr_status open_network(Opened& opened) {
    escsr_error error;
    return escsr_open(opened.bytes, opened.num_bytes, &opened.network, &error);
}

escsr_status open_and_close(Opened& opened) {
    const escsr_status status = open_network(opened);
    escsr_close(opened.network);
    return status;
}

escsr_status run_image(Opened& opened) {
    escsr_error error;
    escsr_options options = {sizeof(options), 2, nullptr, nullptr, nullptr, nullptr};
    return escsr_run(opened.network, image, HEIGHT, WIDTH, opened.result, opened.scale * HEIGHT, opened.scale * WIDTH,
                     &options, &error);
}

escsr_status run_job(Opened& opened) {
    escsr_error error;
    escsr_options options = {sizeof(options), 2, nullptr, nullptr, nullptr, nullptr};
    escsr_rows rows = {sizeof(rows), nullptr, read_rows};
    escsr_storage storage = {sizeof(storage), opened.stored, read_stored, write_stored};
    escsr_job* job;
    escsr_status status = escsr_begin(opened.network, HEIGHT, WIDTH, opened.scale * HEIGHT, opened.scale * WIDTH, &rows,
                                      &storage, 1, &options, &job, &error);
    if (status == ESCSR_OK) status = escsr_make_rows(job, 0, opened.scale * HEIGHT, opened.result, &error);
    escsr_end(job);
    return status;
}

// How many allocations `work` makes, all of which were found to be able to fail; -1 where something is wrong.
int64_t try_all(const char* name, escsr_status (*work)(Opened&), Opened& opened, bool once) {
    const int64_t held_before = held;
    for (int64_t allocations = 0;; ++allocations) {
        fails_once = once;
        until_failure = allocations;
        const escsr_status status = work(opened);
        const bool has_failed = until_failure < 0;
        until_failure = INT64_MAX;
        if (held != held_before) {
            fprintf(stderr, "%s: allocation %d failed and %d are left\n", name, static_cast<int>(allocations),
                    static_cast<int>(held - held_before));
            return -1;
        }
        // A thread that cannot be started is done without, so a failure may go unnoticed.
        if (status != ESCSR_OK && !(status == ESCSR_OUT_OF_MEMORY && has_failed)) {
            fprintf(stderr, "%s: allocation %d failed and the status is %d\n", name, static_cast<int>(allocations),
                    static_cast<int>(status));
            return -1;
        }
        if (!has_failed) return allocations;
    }
}

bool try_file(const char* path, const char* bytes, size_t num_bytes) {
    Opened opened = {bytes, num_bytes, nullptr, nullptr, nullptr, 0};
    for (int once = 0; once < 2; ++once)
        if (try_all("opening", open_and_close, opened, once) < 0) return false;
    if (open_network(opened) != ESCSR_OK) return false;
    escsr_description description = {sizeof(description), 0, 0, 0, 0, nullptr, nullptr};
    escsr_needs needs = {sizeof(needs), 0, 0, 0};
    escsr_error error;
    escsr_describe(opened.network, &description);
    opened.scale = description.scale;
    escsr_plan(opened.network, HEIGHT, WIDTH, opened.scale * HEIGHT, opened.scale * WIDTH, nullptr, 1, 1, &needs, &error);
    opened.result = new float[static_cast<size_t>(3 * opened.scale * HEIGHT * opened.scale * WIDTH)];
    opened.stored = new char[static_cast<size_t>(needs.storage_bytes) + 1];
    int64_t run = 0, job = 0;
    for (int once = 0; once < 2; ++once) {
        if (run >= 0) run = try_all("a run", run_image, opened, once);
        if (job >= 0) job = try_all("a job", run_job, opened, once);
    }
    printf("%s: %d allocations of a run, %d of a job\n", path, static_cast<int>(run), static_cast<int>(job));
    delete[] opened.result;
    delete[] opened.stored;
    escsr_close(opened.network);
    return run >= 0 && job >= 0 && held == 0;
}

}  // namespace

int main(int argc, char** argv) {
    for (int64_t i = 0; i < 3 * HEIGHT * WIDTH; ++i) image[i] = static_cast<float>(i % 11) / 10;
    for (int i = 1; i < argc; ++i) {
        static char bytes[1 << 22];
        FILE* file = fopen(argv[i], "rb");
        if (!file) return 2;
        const size_t num_bytes = fread(bytes, 1, sizeof(bytes), file);
        fclose(file);
        if (!try_file(argv[i], bytes, num_bytes)) {
            fprintf(stderr, "%s\n", argv[i]);
            return 1;
        }
    }
    return 0;
}
