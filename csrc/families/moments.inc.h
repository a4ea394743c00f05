/* Gaussian moments, variance propagation, normal numbers: for one JM_T. */
#include "simd.inc.h"

#include "kernels/moments.inc.h"

#include "kernels/correlation.inc.h"

#include "kernels/gaussian.inc.h"
