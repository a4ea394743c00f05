/*
 * The functions of jacometry's C API, in the order of their slots; the list only grows at its end.
 * An entry NAME is jm_NAME_f32 with JM_T float and jm_NAME_f64 with JM_T double.  Included by
 * capi.h, which says how to get at them.
 *
 *     JM_FUNCTION(result, NAME, (parameters), (their names))
 *
 * What holds for all of them:
 *
 * - They check nothing.  The shapes here and in types.h, and what stands under "Requires", are the
 *   caller's to keep.
 * - Arrays are row-major and aligned as their elements are; outputs overlap nothing.
 * - `work` is aligned to 64 bytes, and what it holds at the start does not matter.  Its size comes
 *   from the function that ends in _work, in this process: it depends on the instruction set.
 * - They allocate nothing, start no threads, never call Python and need no GIL.  Any number of
 *   threads may call them at once, each with outputs and `work` of its own; inputs may be shared.
 * - They compute in the default floating-point environment and give the caller's back.
 * - The bits of a result depend on the item and the instruction set alone, and are those of the
 *   Python function.  JACOMETRY_ISA governs these functions too; JACOMETRY_BACKEND does not.
 * - Kernels return a jm_status.  With JM_NON_FINITE, bad_layer names a layer that has a NaN or an
 *   infinity, and the result is what arithmetic makes of it, as with check_finite=False.
 */

/* Bytes of `work` for chain_product; max_width is the largest width of any interface. */
JM_FUNCTION(size_t, chain_product_work, (ptrdiff_t max_width, ptrdiff_t n_in), (max_width, n_in))

/*
 * The product J = F_{L-1} ... F_0 of one sample, J = mantissa * 2^exponent.
 *
 * sample     which one, for arrays that have a stride from sample to sample
 * max_width  the largest width of any interface
 * begin      0, or where the last range of layers ended: the product is resumed from `work`
 * end        n_layers, or less to look at a signal between two ranges
 * mantissa   (n_L, n_0)  written when end == n_layers; the largest magnitude is in [0.5, 1)
 * exponent   one number  likewise; 0 for a zero or non-finite J
 * bad_layer  one number  the first layer with a NaN or infinity so far, or -1
 * work       chain_product_work(max_width, n_0) bytes
 *
 * Requires 0 <= begin < end <= n_layers and every width >= 1.  Cost: 2 n_{k+1} n_k n_0 flops a
 * layer. Returns JM_OK or JM_NON_FINITE.
 */
JM_FUNCTION(int, chain_product,
            (const jm_chain *chain, ptrdiff_t sample, ptrdiff_t max_width, ptrdiff_t begin,
             ptrdiff_t end, JM_T *mantissa, int64_t *exponent, ptrdiff_t *bad_layer, void *work),
            (chain, sample, max_width, begin, end, mantissa, exponent, bad_layer, work))

/* Bytes of `work` for chain_jvp and chain_vjp. */
JM_FUNCTION(size_t, chain_vectors_work, (ptrdiff_t max_width), (max_width))

/* How many vectors chain_jvp and chain_vjp take at once, at most; at least 1. */
JM_FUNCTION(ptrdiff_t, chain_vectors_group, (ptrdiff_t max_width, int has_shared_weights),
            (max_width, has_shared_weights))

/*
 * J v for the vectors [first, first + count) of `vectors`, and their norms at every interface.
 *
 * max_width   the largest width of any interface
 * begin, end  as for chain_product; layers count from the chain's input
 * bad_layer   (count)  per vector, the first layer with a NaN or infinity that it met, n_layers if
 *             it holds one itself, or -1
 * work        chain_vectors_work(max_width) bytes
 *
 * Requires 0 <= begin < end <= n_layers, every width >= 1, 1 <= count <= chain_vectors_group(...),
 * and one set of weights for all vectors of the call (shared weights, or one sample).  Cost:
 * 2 n_{k+1} n_k flops a layer and vector, and one logarithm.
 * Returns JM_OK, or JM_NON_FINITE if a bad_layer is set.
 */
JM_FUNCTION(int, chain_jvp,
            (const jm_chain *chain, const jm_vectors *vectors, ptrdiff_t max_width, ptrdiff_t first,
             ptrdiff_t count, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t *bad_layer, void *work),
            (chain, vectors, max_width, first, count, begin, end, bad_layer, work))

/* v^T J, otherwise as chain_jvp; layers of a range count from the chain's output. */
JM_FUNCTION(int, chain_vjp,
            (const jm_chain *chain, const jm_vectors *vectors, ptrdiff_t max_width, ptrdiff_t first,
             ptrdiff_t count, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t *bad_layer, void *work),
            (chain, vectors, max_width, first, count, begin, end, bad_layer, work))

/* Bytes of `work` for chain_log_svdvals. */
JM_FUNCTION(size_t, chain_log_svdvals_work, (ptrdiff_t max_width, ptrdiff_t n_in),
            (max_width, n_in))

/*
 * Natural logs of all singular values of F_{L-1} ... F_0 for one sample, whatever their spread.
 *
 * sample, max_width, begin, end, bad_layer   as for chain_product
 * values  (min(n_0, n_L))  written when end == n_layers: descending, -inf for zeros
 * errors  (min(n_0, n_L))  likewise: bound of |value - truth|; NaN both with JM_NON_FINITE
 * work    chain_log_svdvals_work(max_width, n_0) bytes
 *
 * Requires 0 <= begin < end <= n_layers and every width >= 1.  Double precision for both types.
 * Cost: some 6 n^3 flops a layer, n the larger width, and 20 n^3 at the end.  Returns JM_OK or
 * JM_NON_FINITE.
 */
JM_FUNCTION(int, chain_log_svdvals,
            (const jm_chain *chain, ptrdiff_t sample, ptrdiff_t max_width, ptrdiff_t begin,
             ptrdiff_t end, double *values, double *errors, ptrdiff_t *bad_layer, void *work),
            (chain, sample, max_width, begin, end, values, errors, bad_layer, work))

/* How many items lyapunov_spectrum takes at once, at most; at least 1. */
JM_FUNCTION(ptrdiff_t, lyapunov_spectrum_group, (const jm_lyapunov *job), (job))

/* Bytes of `work` for lyapunov_spectrum.  Of `job` both read the first three fields alone. */
JM_FUNCTION(size_t, lyapunov_spectrum_work, (const jm_lyapunov *job), (job))

/*
 * Growth rates of the independent directions of F_{L-1} ... F_0, fastest first, for the items
 * [first, first + count).
 *
 * job         what is asked, and where it goes: exponents and standard errors are written when
 *             end == n_layers, the history as it comes
 * begin, end  as for chain_product; layers count from the chain's input
 * bad_layer   (count)  per item, the first layer with a NaN or infinity so far, or -1; the results
 *             of that item are then NaN, and those of the others right
 * work        lyapunov_spectrum_work(job) bytes, of one group
 *
 * Requires 0 <= begin < end <= n_layers, 1 <= count <= lyapunov_spectrum_group(job), 1 <= n_columns
 * <= every width, 0 <= burn_in < n_layers, 1 <= n_batches <= n_layers - burn_in, and a finite start
 * without a zero column; a Gaussian one meets every direction.  Cost: 2 n_{k+1} (n_k + n_columns)
 * n_columns flops a layer and item.  Returns JM_OK, or JM_NON_FINITE if a bad_layer is set.
 */
JM_FUNCTION(int, lyapunov_spectrum,
            (const jm_chain *chain, const jm_lyapunov *job, ptrdiff_t first, ptrdiff_t count,
             ptrdiff_t begin, ptrdiff_t end, ptrdiff_t *bad_layer, void *work),
            (chain, job, first, count, begin, end, bad_layer, work))
