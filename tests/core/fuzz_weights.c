/* Opens each file named on its command line as a network, and runs an image of 8x8 pixels where it opens: for
 * damaged files, under sanitizers. Prints how many opened. Fails where an answer contradicts itself.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "escsr.h"

enum { SIDE = 8, MOST_SECONDS = 5 };

/* A damaged file may be a network of gigantic windows; it is stopped. */
static int is_late(void *started, double done) {
    (void)done;
    return clock() - *(clock_t *)started > (clock_t)MOST_SECONDS * CLOCKS_PER_SEC;
}

/* The bytes of a file in memory of exactly their size, so that a read beyond them is seen. */
static char *read_file(const char *path, size_t *num_bytes) {
    FILE *file = fopen(path, "rb");
    char *bytes = NULL;
    long length;
    if (!file) return NULL;
    if (fseek(file, 0, SEEK_END) == 0 && (length = ftell(file)) >= 0 && fseek(file, 0, SEEK_SET) == 0) {
        *num_bytes = (size_t)length;
        bytes = malloc(*num_bytes ? *num_bytes : 1);
        if (bytes && fread(bytes, 1, *num_bytes, file) != *num_bytes) {
            free(bytes);
            bytes = NULL;
        }
    }
    fclose(file);
    return bytes;
}

/* Whether a function that returned `status` filled `error` as it should. */
static int agrees(escsr_status status, const escsr_error *error) {
    const char *character;
    if (error->status != (int32_t)status || (status == ESCSR_OK) != (error->message[0] == 0)) return 0;
    if (!memchr(error->message, 0, sizeof error->message)) return 0;
    for (character = error->message; *character; ++character)
        if ((unsigned char)*character < ' ') return 0;
    return 1;
}

static int run(const escsr_network *network) {
    escsr_description description = {sizeof description, 0, 0, 0, 0, NULL, NULL};
    escsr_options options = {sizeof options, 2, is_late, NULL, NULL, NULL};
    escsr_error error;
    escsr_status status;
    clock_t started = clock();
    int64_t side;
    float image[3 * SIDE * SIDE], *result;
    int i;
    if (escsr_describe(network, &description) != ESCSR_OK) return 0;
    if (description.scale < 1 || description.num_parameters < 1 || !description.configuration) return 0;
    options.user = &started;
    side = description.any_size ? 3 * SIDE : (int64_t)description.scale * SIDE;
    result = malloc((size_t)(3 * side * side) * sizeof *result);
    if (!result) return 0;
    for (i = 0; i < 3 * SIDE * SIDE; ++i) image[i] = (float)(i % 11) / 10;
    status = escsr_run(network, image, SIDE, SIDE, result, side, side, &options, &error);
    free(result);
    if (!agrees(status, &error)) return 0;
    return status == ESCSR_OK || status == ESCSR_NOT_FINITE || status == ESCSR_STOPPED || status == ESCSR_OUT_OF_MEMORY;
}

int main(int argc, char **argv) {
    int i, opened = 0;
    for (i = 1; i < argc; ++i) {
        escsr_network *network = NULL;
        escsr_error error;
        escsr_status status;
        size_t num_bytes = 0;
        int is_right;
        char *bytes = read_file(argv[i], &num_bytes);
        if (!bytes) {
            fprintf(stderr, "%s cannot be read\n", argv[i]);
            return 2;
        }
        status = escsr_open(bytes, num_bytes, &network, &error);
        free(bytes);
        is_right = agrees(status, &error) && (network != NULL) == (status == ESCSR_OK);
        if (is_right && network) is_right = run(network);
        if (!is_right) {
            fprintf(stderr, "%s: an answer contradicts itself (%d, \"%.500s\")\n", argv[i], (int)status, error.message);
            return 1;
        }
        opened += network != NULL;
        escsr_close(network);
    }
    printf("%d of %d opened\n", opened, argc - 1);
    return 0;
}
