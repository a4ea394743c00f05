/* Norms of matrices: for one JM_T. */
#include "simd.inc.h"

#include "kernels/scaling.inc.h"

#include "kernels/spectral.inc.h"

#include "kernels/spectral_eigenvalue.inc.h"

#include "kernels/spectral_proof.inc.h"

#include "kernels/spectral_gram.inc.h"

#include "kernels/spectral_lanczos.inc.h"

#include "kernels/sum_squares.inc.h"
