/* Run recorded networks through the C interface, for machines and sanitizers that Python does not run under.
 *
 *     run_cases FOLDER [NAME...]
 *
 * FOLDER is what golden_cases.py wrote. Each network is run whole, with one thread and with several; row by row with a
 * limit of memory and with storage; and by two threads at once. Work that a callback stops must stop.
 * Ends with 0 when all answers are as recorded. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "escsr.h"

#if !defined(_WIN32) && !defined(__wasi__) && !defined(__EMSCRIPTEN__)
#define HAS_THREADS
#include <pthread.h>
#endif

typedef struct recording {
    char name[100];
    long height, width, output_height, output_width;
    double tolerance;
    float *image, *expected;
    size_t num_expected;
} recording;

static int num_failed = 0;

static void fail(const recording *known, const char *what, const char *message) {
    printf("FAILED %s, %s: %s\n", known->name, what, message);
    num_failed++;
}

static void give_up(const char *what) {
    printf("%s\n", what);
    exit(2);
}

static void *allocate(size_t bytes) {
    void *memory = malloc(bytes > 0 ? bytes : 1);
    if (!memory) give_up("no memory");
    return memory;
}

/* The whole file FOLDER/NAME.SUFFIX. */
static void *read_whole(const char *folder, const char *name, const char *suffix, size_t *num_bytes) {
    char path[1000];
    snprintf(path, sizeof path, "%s/%s.%s", folder, name, suffix);
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0) give_up(path);
    *num_bytes = (size_t)ftell(file);
    rewind(file);
    void *bytes = allocate(*num_bytes);
    if (fread(bytes, 1, *num_bytes, file) != *num_bytes) give_up(path);
    fclose(file);
    return bytes;
}

static void compare(const recording *known, const float *result, const char *what) {
    double worst = 0;
    for (size_t i = 0; i < known->num_expected; i++) {
        const double difference = fabs((double)result[i] - (double)known->expected[i]);
        if (!(difference <= worst)) worst = difference;
    }
    char message[100];
    snprintf(message, sizeof message, "off by %.3g, allowed is %.3g", worst, known->tolerance);
    if (!(worst <= known->tolerance)) fail(known, what, message);
}

static int count_calls(void *user, double done) {
    ++*(int *)user;
    return !(done >= 0 && done <= 1);
}

static int stop(void *user, double done) {
    (void)user, (void)done;
    return 1;
}

static void run_whole(const recording *known, const escsr_network *network, int num_threads, const char *what) {
    int num_calls = 0;
    escsr_options options = {sizeof options, num_threads, count_calls, &num_calls, NULL, NULL};
    escsr_error error;
    float *result = allocate(known->num_expected * sizeof(float));
    if (escsr_run(network, known->image, known->height, known->width, result, known->output_height,
                  known->output_width, &options, &error))
        fail(known, what, error.message);
    else
        compare(known, result, what);
    if (num_calls == 0) fail(known, what, "the progress callback was not called");
    free(result);
}

static void run_stopped(const recording *known, const escsr_network *network) {
    escsr_options options = {sizeof options, 2, stop, NULL, NULL, NULL};
    escsr_error error;
    float *result = allocate(known->num_expected * sizeof(float));
    if (escsr_run(network, known->image, known->height, known->width, result, known->output_height,
                  known->output_width, &options, &error) != ESCSR_STOPPED)
        fail(known, "stopped", "it did not stop");
    free(result);
}

static int read_rows(void *user, int64_t top, int64_t bottom, float *rows) {
    const recording *known = user;
    const size_t count = (size_t)((bottom - top) * known->width);
    for (int channel = 0; channel < 3; channel++)
        memcpy(rows + channel * count, known->image + (channel * known->height + top) * known->width,
               count * sizeof(float));
    return 0;
}

typedef struct store {
    char *bytes;
    int64_t size;
} store;

static int read_store(void *user, int64_t offset, int64_t num_bytes, void *bytes) {
    const store *kept = user;
    if (offset < 0 || num_bytes < 0 || offset + num_bytes > kept->size) return 1;
    memcpy(bytes, kept->bytes + offset, (size_t)num_bytes);
    return 0;
}

static int write_store(void *user, int64_t offset, int64_t num_bytes, const void *bytes) {
    store *kept = user;
    if (offset < 0 || num_bytes < 0 || offset + num_bytes > kept->size) return 1;
    memcpy(kept->bytes + offset, bytes, (size_t)num_bytes);
    return 0;
}

/* Band by band, the lower ones first. */
static void make_bands(const recording *known, escsr_job *job, int64_t band_rows, float *result, const char *what) {
    escsr_error error;
    const int64_t height = known->output_height, width = known->output_width;
    float *rows = allocate((size_t)(3 * band_rows * width) * sizeof(float));
    for (int64_t top = (height - 1) / band_rows * band_rows; top >= 0; top -= band_rows) {
        const int64_t bottom = top + band_rows < height ? top + band_rows : height;
        if (escsr_make_rows(job, top, bottom, rows, &error)) fail(known, what, error.message);
        for (int channel = 0; channel < 3; channel++)
            memcpy(result + (channel * height + top) * width, rows + channel * (bottom - top) * width,
                   (size_t)((bottom - top) * width) * sizeof(float));
    }
    free(rows);
}

static void run_rows(const recording *known, const escsr_network *network, int with_storage, const char *what) {
    escsr_error error;
    escsr_needs needs = {sizeof needs, 0, 0, 0};
    escsr_options options = {sizeof options, 2, NULL, NULL, NULL, NULL};
    escsr_rows rows = {sizeof rows, (void *)known, read_rows};
    const int64_t limit_bytes = 1000000;
    if (escsr_plan(network, known->height, known->width, known->output_height, known->output_width, &options,
                   limit_bytes, with_storage, &needs, &error)) {
        fail(known, what, error.message);
        return;
    }
    store kept = {allocate((size_t)needs.storage_bytes), needs.storage_bytes};
    escsr_storage storage = {sizeof storage, &kept, read_store, write_store};
    escsr_job *job = NULL;
    float *result = allocate(known->num_expected * sizeof(float));
    if (escsr_begin(network, known->height, known->width, known->output_height, known->output_width, &rows,
                    with_storage ? &storage : NULL, limit_bytes, &options, &job, &error)) {
        fail(known, what, error.message);
    } else {
        make_bands(known, job, needs.band_rows > 0 ? needs.band_rows : 7, result, what);
        compare(known, result, what);
    }
    escsr_end(job);
    free(result);
    free(kept.bytes);
}

#if defined(HAS_THREADS)

typedef struct run {
    const recording *known;
    const escsr_network *network;
} run;

static void *run_in_thread(void *data) {
    const run *it = data;
    run_whole(it->known, it->network, 2, "two at once");
    return NULL;
}

static void run_twice_at_once(const recording *known, const escsr_network *network) {
    run it = {known, network};
    pthread_t other;
    if (pthread_create(&other, NULL, run_in_thread, &it)) give_up("no thread");
    run_whole(known, network, 2, "two at once");
    pthread_join(other, NULL);
}

#else

static void run_twice_at_once(const recording *known, const escsr_network *network) { (void)known, (void)network; }

#endif

static void run_recording(const char *folder, recording *known) {
    size_t num_bytes;
    void *bytes = read_whole(folder, known->name, "safetensors", &num_bytes);
    escsr_error error;
    escsr_network *network;
    const escsr_status status = escsr_open(bytes, num_bytes, &network, &error);
    free(bytes);
    if (status) {
        fail(known, "open", error.message);
        return;
    }
    escsr_description description = {sizeof description, 0, 0, 0, 0, NULL, NULL};
    escsr_describe(network, &description);
    size_t image_bytes, expected_bytes;
    known->image = read_whole(folder, known->name, "image", &image_bytes);
    known->expected = read_whole(folder, known->name, "expected", &expected_bytes);
    known->num_expected = expected_bytes / sizeof(float);
    run_whole(known, network, 1, "one thread");
    run_whole(known, network, 3, "three threads");
    run_stopped(known, network);
    run_rows(known, network, 0, "row by row");
    run_rows(known, network, 1, "row by row, with storage");
    run_twice_at_once(known, network);
    escsr_close(network);
    free(known->image);
    free(known->expected);
    printf("%s on %s\n", known->name, description.cpu);
    fflush(stdout);
}

static int is_wanted(const char *name, char **wanted, int num_wanted) {
    for (int i = 0; i < num_wanted; i++)
        if (strcmp(name, wanted[i]) == 0) return 1;
    return num_wanted == 0;
}

int main(int num_arguments, char **arguments) {
    if (num_arguments < 2) give_up("run_cases FOLDER [NAME...]");
    size_t num_bytes;
    char *list = read_whole(arguments[1], "cases", "txt", &num_bytes), *line = list, *end = list + num_bytes;
    int num_run = 0;
    while (line < end) {
        char *next = memchr(line, '\n', (size_t)(end - line));
        if (!next) break;
        *next = 0;
        recording known;
        if (sscanf(line, "%99s %ld %ld %ld %ld %lf", known.name, &known.height, &known.width, &known.output_height,
                   &known.output_width, &known.tolerance) != 6)
            give_up("cases.txt cannot be read");
        if (is_wanted(known.name, arguments + 2, num_arguments - 2)) {
            run_recording(arguments[1], &known);
            num_run++;
        }
        line = next + 1;
    }
    free(list);
    printf("%d networks, %d failures\n", num_run, num_failed);
    return num_failed > 0 || num_run == 0;
}
