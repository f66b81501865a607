/* Runs a fuzz target over the files it is given: what finds bugs is libFuzzer, but what it has
 * found can be looked at with any compiler. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        uint8_t *data;
        long size;

        if (file == NULL || fseek(file, 0, SEEK_END) != 0 || (size = ftell(file)) < 0) {
            perror(argv[i]);
            return 2;
        }
        rewind(file);
        data =
            malloc((size_t)size + (size == 0)); /* no byte more, so that reading it is seen */
        if (data == NULL || fread(data, 1, (size_t)size, file) != (size_t)size) {
            perror(argv[i]);
            return 2;
        }
        fclose(file);
        fprintf(stderr, "%s\n", argv[i]);
        (void)LLVMFuzzerTestOneInput(data, (size_t)size);
        free(data);
    }
    return 0;
}
