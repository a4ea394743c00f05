/* Gaussian moments and variance propagation; normal numbers.  Included by variant.inc.h, once for
 * each JM_T. */
#include "simd.inc.h"

#include "kernels/moments.inc.h"

#include "kernels/correlation.inc.h"

#include "kernels/gaussian.inc.h"
