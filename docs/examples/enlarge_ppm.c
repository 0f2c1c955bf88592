/* Enlarge a PPM picture (P6, 8 bits, no comments) in C:  enlarge_ppm NETWORK.safetensors IN.ppm OUT.ppm
 * From the folder of the package:  cc enlarge_ppm.c -I core/source core/built/libescsr-*.so -o enlarge_ppm */
#include <stdio.h>
#include <stdlib.h>

#include "escsr.h"

static void require(int holds, const char *what) {
    if (!holds) fprintf(stderr, "%s\n", what), exit(1);
}

int main(int num_arguments, char **arguments) {
    require(num_arguments == 4, "enlarge_ppm NETWORK.safetensors IN.ppm OUT.ppm");
    FILE *file = fopen(arguments[1], "rb");
    require(file && fseek(file, 0, SEEK_END) == 0, "The network cannot be read.");
    size_t num_bytes = (size_t)ftell(file);
    rewind(file);
    void *bytes = malloc(num_bytes);
    require(bytes && fread(bytes, 1, num_bytes, file) == num_bytes, "The network cannot be read.");
    escsr_error error;
    escsr_network *network;
    require(escsr_open(bytes, num_bytes, &network, &error) == ESCSR_OK, error.message);
    escsr_description description = {.size = sizeof description};
    escsr_describe(network, &description);

    int width = 0, height = 0, scale = description.scale;
    FILE *in = fopen(arguments[2], "rb");
    require(in && fscanf(in, "P6 %d %d 255", &width, &height) == 2 && width > 0 && height > 0, "This is no P6.");
    size_t num_pixels = (size_t)width * height, num_enlarged = num_pixels * scale * scale;
    float *image = malloc(3 * num_pixels * sizeof(float)), *enlarged = malloc(3 * num_enlarged * sizeof(float));
    require(image && enlarged, "There is not enough memory.");
    fgetc(in); /* the end of the header */
    for (size_t i = 0; i < 3 * num_pixels; i++) /* red, green, blue of each pixel, to three planes */
        image[i % 3 * num_pixels + i / 3] = (float)fgetc(in) / 255.0f;
    require(!feof(in), "The picture ends too early.");
    require(escsr_run(network, image, height, width, enlarged, (int64_t)scale * height, (int64_t)scale * width, NULL,
                      &error) == ESCSR_OK, error.message);

    FILE *out = fopen(arguments[3], "wb");
    require(out && fprintf(out, "P6 %d %d 255\n", scale * width, scale * height) > 0, "The result cannot be written.");
    for (size_t i = 0; i < 3 * num_enlarged; i++) {
        float value = enlarged[i % 3 * num_enlarged + i / 3] * 255.0f + 0.5f;
        fputc(value < 0 ? 0 : value > 255 ? 255 : (int)value, out);
    }
    require(fclose(out) == 0, "The result cannot be written.");
    escsr_close(network);
    return 0;
}
