/* A plain main for a fuzz target: runs it once on each file that is named, without libFuzzer.
 *
 * Lives here: reading files. Ends with 0 when every check held; a failed check aborts.
 */
#include "input.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        uint8_t *bytes = malloc(INPUT_MAX + 1), *exact;
        size_t size;

        assert(file != NULL && bytes != NULL);
        size = fread(bytes, 1, INPUT_MAX + 1, file);
        assert(size <= INPUT_MAX && !ferror(file));
        /* Of the exact size: a sanitizer sees what is read behind it. */
        exact = realloc(bytes, size + !size);
        assert(exact != NULL);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
        fclose(file);
    }
    return 0;
}
