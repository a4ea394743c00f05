/* Every kernel of every table that this machine runs, in both types.  Usage: main [isa] */
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { ALIGNMENT = 64, FAILURES_SHOWN = 20 };

const char *current_isa = "";
int current_dtype;
static long n_passed, n_failed;
static uint64_t random_state = 0x9E3779B97F4A7C15u;

void check(int is_right, const char *format, ...) {
    if (is_right) {
        n_passed++;
        return;
    }
    n_failed++;
    if (n_failed > FAILURES_SHOWN)
        return;
    va_list arguments;
    printf("FAILED %s float%d: ", current_isa, current_dtype == JM_F64 ? 64 : 32);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
}

static void *not_null(void *block) {
    if (!block) {
        printf("FAILED: no memory\n");
        exit(2);
    }
    return block;
}

size_t size_of(int dtype) { return dtype == JM_F64 ? sizeof(double) : sizeof(float); }

void *buffer(ptrdiff_t n, int dtype) {
    return (char *)not_null(calloc((size_t)n + 1, size_of(dtype))) + size_of(dtype);
}

void buffer_free(void *entries, int dtype) {
    if (entries)
        free((char *)entries - size_of(dtype));
}

void *workspace(size_t n) {
    void *work = NULL;
    if (posix_memalign(&work, ALIGNMENT, n) != 0)
        work = NULL;
    return memset(not_null(work), 0xA5, n);
}

void workspace_free(void *work) { free(work); }

double get(const void *entries, int dtype, ptrdiff_t i) {
    return dtype == JM_F64 ? ((const double *)entries)[i] : (double)((const float *)entries)[i];
}

void set(void *entries, int dtype, ptrdiff_t i, double value) {
    if (dtype == JM_F64)
        ((double *)entries)[i] = value;
    else
        ((float *)entries)[i] = (float)value;
}

int same_bits(const void *a, const void *b, size_t n) { return memcmp(a, b, n) == 0; }

double unit_roundoff(int dtype) { return dtype == JM_F64 ? DBL_EPSILON / 2 : FLT_EPSILON / 2; }

double largest_number(int dtype) { return dtype == JM_F64 ? DBL_MAX : (double)FLT_MAX; }

double smallest_number(int dtype) { return dtype == JM_F64 ? 0x1p-1074 : 0x1p-149; }

/* xorshift64* (Vigna, An experimental exploration of Marsaglia's xorshift generators, 2016). */
double uniform(void) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (double)((random_state * 0x2545F4914F6CDD1Du) >> 11) * 0x1p-53;
}

/* Box and Muller (1958). */
double normal(void) {
    const double radius = sqrt(-2 * log(1 - uniform()));
    return radius * cos(6.283185307179586 * uniform());
}

int main(int n_arguments, char **arguments) {
    for (int i = 0; i < jm_n_tables(); i++) {
        const jm_table *table = &jm_tables[i];
        if (n_arguments > 1 && strcmp(arguments[1], table->isa) != 0)
            continue;
        for (int dtype = JM_F32; dtype <= JM_F64; dtype++) {
            current_isa = table->isa;
            current_dtype = dtype;
            const long before = n_passed + n_failed;
            test_chain_product(table, dtype);
            test_chain_vectors(table, dtype);
            test_lyapunov_spectrum(table, dtype);
            test_chain_svdvals(table, dtype);
            test_moments(table, dtype);
            test_correlation(table, dtype);
            test_spectral(table, dtype);
            test_gaussian(table, dtype);
            printf("%-8s float%d: %ld checks\n", table->isa, dtype == JM_F64 ? 64 : 32,
                   n_passed + n_failed - before);
        }
    }
    printf("%ld passed, %ld failed\n", n_passed, n_failed);
    return n_failed > 0 || n_passed == 0;
}
