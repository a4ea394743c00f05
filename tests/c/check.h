/*
 * What the tests of the kernels share: the count of checks, buffers that end where they are said
 * to, numbers of either type, and random numbers.
 */
#ifndef CHECK_H
#define CHECK_H

#include <stddef.h>
#include <stdint.h>

#include "jm_kernels.h"

/* Counts one check; a failed one is printed with the words given. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void check(int is_right, const char *format, ...);

/* Where a failed check was: the table, the type and the case at hand. */
extern const char *current_isa;
extern int current_dtype;

/*
 * n entries of a type, all zero, that end exactly where the heap block ends, so that the sanitizer
 * sees an entry too many, and start off any vector's alignment.  buffer_free releases them.
 */
void *buffer(ptrdiff_t n, int dtype);
void buffer_free(void *entries, int dtype);
/* n bytes at a multiple of 64 that end exactly; filled with 0xA5, since contents must not matter.
 */
void *workspace(size_t n);
void workspace_free(void *work);

size_t size_of(int dtype);
double get(const void *entries, int dtype, ptrdiff_t i);
void set(void *entries, int dtype, ptrdiff_t i, double value);
int same_bits(const void *a, const void *b, size_t n);

double unit_roundoff(int dtype);
double largest_number(int dtype);
double smallest_number(int dtype); /* a subnormal */

/* A fixed sequence: uniform in [0, 1), and normal. */
double uniform(void);
double normal(void);

void test_chain_product(const jm_table *table, int dtype);
void test_chain_vectors(const jm_table *table, int dtype);
void test_lyapunov_spectrum(const jm_table *table, int dtype);
void test_chain_svdvals(const jm_table *table, int dtype);
void test_moments(const jm_table *table, int dtype);
void test_correlation(const jm_table *table, int dtype);
void test_spectral(const jm_table *table, int dtype);
void test_gaussian(const jm_table *table, int dtype);

#endif
