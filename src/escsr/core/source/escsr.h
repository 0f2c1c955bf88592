/* The C interface of escsr's core: run any network of the ESC family on a CPU.
 *
 * A network is opened once, from the bytes of a weights file or from named arrays, and may then be used from many
 * threads at the same time; nothing is shared between networks. All arrays are C-contiguous float32. Images are
 * planar RGB, (3, height, width), nominally in [0, 1]; results are not clamped.
 *
 *     escsr_error error;
 *     escsr_network *network;
 *     if (escsr_open(bytes, num_bytes, &network, &error)) puts(error.message);
 *     escsr_run(network, image, height, width, result, 4 * height, 4 * width, NULL, &error);
 *     escsr_close(network);
 *
 * To bind it to another language: structures hold only the types below, in the order written, with C's usual
 * alignment. Those that may grow begin with `size`, which the caller sets to sizeof(the structure): of a smaller one,
 * as an older caller has it, what is missing has its default; what a newer one adds is not read, and set to zero where the
 * library fills it in. A function that fails returns its status and, where `error` is not NULL, a message of one line
 * for people in UTF-8; where it succeeds the message is empty.
 *
 * Sides of images and results are 1 to 2^31 - 1 pixels, whole ones up to 2^40. Arrays of float32 lie on boundaries of
 * 4 bytes.
 */
#ifndef ESCSR_H
#define ESCSR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define ESCSR_API __declspec(dllexport)
#else
#define ESCSR_API __attribute__((visibility("default")))
#endif

/* Grows when something is added; the first digit when something that was there has changed. */
#define ESCSR_INTERFACE_VERSION 100

typedef enum escsr_status {
    ESCSR_OK = 0,
    ESCSR_INVALID_ARGUMENT = 1,      /* a size, pointer or option that cannot be */
    ESCSR_INVALID_FILE = 2,          /* the bytes are not a weights file of escsr's, or are damaged */
    ESCSR_INVALID_CONFIGURATION = 3, /* a configuration that no network can have */
    ESCSR_MISSING_WEIGHTS = 4,       /* an array is missing, unknown, or has another shape than its configuration says */
    ESCSR_OUT_OF_MEMORY = 5,
    ESCSR_STOPPED = 6,      /* the progress callback asked for it */
    ESCSR_CALLBACK = 7,     /* a callback for rows or storage returned other than 0 */
    ESCSR_UNSUPPORTED = 8,  /* this processor, or ESCSR_CPU names instructions that it lacks */
    ESCSR_NOT_FINITE = 9    /* the network gave NaN or infinite values */
} escsr_status;

typedef struct escsr_error {
    int32_t status; /* an escsr_status */
    char message[508];
} escsr_error;

typedef struct escsr_network escsr_network;

/* A named array of weights, as escsr's own files name them. */
typedef struct escsr_array {
    const char *name;
    const void *data; /* little endian, contiguous, row-major */
    const char *type; /* "F32", "F16", "BF16" or "F64", as in a safetensors file */
    int32_t num_dimensions;
    const int64_t *shape;
} escsr_array;

typedef struct escsr_description {
    size_t size;
    int32_t scale;         /* pixels of the result per pixel of the image, per side; a default where any_size is 1 */
    int32_t any_size;      /* 1: the result may have any size (ESC+LTE) */
    int32_t window_pixels; /* side of an attention window, in pixels of the image */
    int64_t num_parameters;
    const char *configuration; /* JSON, owned by the network */
    const char *cpu;           /* instructions in use: "avx512", "avx2", "sse4.2", "neon", "simd128" or "generic" */
} escsr_description;

/* Called from the thread that called escsr_run, at least every half second, with the share of the work that is done,
 * 0 to 1. Anything but 0 stops the work: escsr_run then returns ESCSR_STOPPED. */
typedef int (*escsr_progress)(void *user, double done);

/* One axis of a part of an image whose result may have any size: which pixels of the image are given, and which of
 * the result are to be made. */
typedef struct escsr_axis {
    int64_t length;        /* of the whole image */
    int64_t output_length; /* of the whole result */
    int64_t start;         /* pixel of the image that the given one begins with */
    int64_t output_start;  /* pixel of the result that the one to make begins with */
} escsr_axis;

typedef struct escsr_options {
    size_t size;
    int32_t num_threads; /* 0: one for each processor that this process may use */
    escsr_progress progress; /* may be NULL */
    void *user;              /* for progress */
    const escsr_axis *rows;  /* where any_size is 1, of a part of an image; NULL: the image is whole */
    const escsr_axis *columns;
} escsr_options;

/* ESCSR_INTERFACE_VERSION of the library. */
ESCSR_API int32_t escsr_interface_version(void);

/* Open a network from the bytes of a safetensors file of escsr's, whose header holds its configuration. The bytes may
 * be freed afterwards. */
ESCSR_API escsr_status escsr_open(const void *bytes, size_t num_bytes, escsr_network **network, escsr_error *error);

/* Open a network from a configuration (JSON: the fields of ESCConfig; those left out have their defaults) and
 * its arrays. All may be freed afterwards. */
ESCSR_API escsr_status escsr_open_arrays(const char *configuration, const escsr_array *arrays, size_t num_arrays,
                                         escsr_network **network, escsr_error *error);

/* Close a network that no thread uses any more; NULL is allowed. */
ESCSR_API void escsr_close(escsr_network *network);

ESCSR_API escsr_status escsr_describe(const escsr_network *network, escsr_description *description);

/* Enlarge an image.
 *
 * image:  (3, height, width), height and width >= 1
 * result: (3, output_height, output_width), scale times as high and wide; any size >= 1 where any_size is 1
 * options: NULL for the defaults
 */
ESCSR_API escsr_status escsr_run(const escsr_network *network, const float *image, int64_t height, int64_t width,
                                 float *result, int64_t output_height, int64_t output_width,
                                 const escsr_options *options, escsr_error *error);

/* Rows of an image that is read as it is needed. Callbacks return 0, or anything else to give up, and are called from
 * the thread that called escsr_begin or escsr_make_rows alone. */
typedef struct escsr_rows {
    size_t size;
    void *user;
    /* Put rows [top, bottom) of the image into `rows`, (3, bottom - top, width). Each row is asked for several times. */
    int (*read)(void *user, int64_t top, int64_t bottom, float *rows);
} escsr_rows;

/* Where features are kept that memory has no room for: a file, say. NULL callbacks keep them in memory. */
typedef struct escsr_storage {
    size_t size;
    void *user;
    int (*read)(void *user, int64_t offset, int64_t num_bytes, void *bytes);
    int (*write)(void *user, int64_t offset, int64_t num_bytes, const void *bytes);
} escsr_storage;

/* What a job takes. */
typedef struct escsr_needs {
    size_t size;
    int64_t memory_bytes;  /* at most, beside the network, the image, and the rows of the result that the caller holds */
    int64_t storage_bytes; /* of escsr_storage; 0 where features are kept in memory */
    int64_t band_rows;     /* rows of the result that are best made at a time */
} escsr_needs;

/* What a job (with storage if with_storage is 1) takes for an image when it is to keep within limit_bytes of memory;
 * where it cannot, the least that it can do with, which is more. limit_bytes 0 is no limit. */
ESCSR_API escsr_status escsr_plan(const escsr_network *network, int64_t height, int64_t width, int64_t output_height,
                                  int64_t output_width, const escsr_options *options, int64_t limit_bytes,
                                  int32_t with_storage, escsr_needs *needs, escsr_error *error);

/* One image that is being enlarged: escsr_run for images and results of any size, in the memory that escsr_plan says for
 * limit_bytes. The result is that of escsr_run up to the order of sums. */
typedef struct escsr_job escsr_job;

/* Make the features of an image. The network, and what rows, storage and options point to, are in use until escsr_end. */
ESCSR_API escsr_status escsr_begin(const escsr_network *network, int64_t height, int64_t width, int64_t output_height,
                                   int64_t output_width, const escsr_rows *rows, const escsr_storage *storage,
                                   int64_t limit_bytes, const escsr_options *options, escsr_job **job,
                                   escsr_error *error);

/* Make rows [top, bottom) of the result, (3, bottom - top, output_width): any rows in any order, by one thread at a
 * time. More at a time than escsr_plan's band_rows take more memory. */
ESCSR_API escsr_status escsr_make_rows(escsr_job *job, int64_t top, int64_t bottom, float *rows, escsr_error *error);

/* Free what a job holds; NULL is allowed. */
ESCSR_API void escsr_end(escsr_job *job);

#ifdef __cplusplus
}
#endif
#endif
