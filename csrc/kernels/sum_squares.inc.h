/*
 * Sums of squares of the entries of a batch of matrices: the Frobenius norm before its root.
 */
#ifndef JM_SQUARES_LANES
#define JM_SQUARES_LANES 16 /* partial sums kept side by side */
#endif

/*
 * squares[i] = sum of a[i][j]^2 over j, in double whatever JM_T is.
 *
 * a         (n_items, n_entries)  row-major, contiguous
 * squares   (n_items)             not scaled: infinite or zero where the squares leave the range of
 *                                 double, NaN where an entry is
 *
 * Requires n_items, n_entries >= 1.  Never allocates.  Each term passes through at most n_entries
 * roundings, one more without fused operations.  Returns JM_OK.
 */
static int JM_NAME(sum_squares)(ptrdiff_t n_items, ptrdiff_t n_entries, const void *a_,
                                double *squares) {
    for (ptrdiff_t item = 0; item < n_items; item++) {
        const JM_T *const x = (const JM_T *)a_ + item * n_entries;
        ptrdiff_t i = 0;
        double square = 0;
#if JM_IS_F64
        JM_V sum[4];
        for (int k = 0; k < 4; k++)
            sum[k] = JM_SPLAT(0);
        for (; i + 4 * JM_VW <= n_entries; i += 4 * JM_VW)
            for (int k = 0; k < 4; k++) {
                const JM_V v = JM_LOAD(x + i + k * JM_VW);
                sum[k] = JM_FMADD(v, v, sum[k]);
            }
        for (; i + JM_VW <= n_entries; i += JM_VW) {
            const JM_V v = JM_LOAD(x + i);
            sum[0] = JM_FMADD(v, v, sum[0]);
        }
        square = JM_LANE_SUM((sum[0] + sum[1]) + (sum[2] + sum[3]));
#else
        double sum[JM_SQUARES_LANES] = {0};
        for (; i + JM_SQUARES_LANES <= n_entries; i += JM_SQUARES_LANES)
            for (int k = 0; k < JM_SQUARES_LANES; k++)
                sum[k] += (double)x[i + k] * (double)x[i + k];
        for (int half = JM_SQUARES_LANES / 2; half; half /= 2)
            for (int k = 0; k < half; k++)
                sum[k] += sum[k + half];
        square = sum[0];
#endif
        for (; i < n_entries; i++)
            square += (double)x[i] * (double)x[i];
        squares[item] = square;
    }
    return JM_OK;
}
