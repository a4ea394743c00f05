/* All kernel bodies for one JM_T; included twice by variant.inc.h. */
#include "simd.inc.h"

#include "kernels/scaling.inc.h"

#include "kernels/chain_step.inc.h"

#include "kernels/product_block.inc.h"

#include "kernels/product_run.inc.h"

#include "kernels/product_registers.inc.h"

#include "kernels/product_lanes.inc.h"

#include "kernels/chain_product.inc.h"

#include "kernels/vector_rows.inc.h"

#include "kernels/chain_vectors.inc.h"

#include "kernels/lyapunov_columns.inc.h"

#include "kernels/lyapunov_lanes.inc.h"

#include "kernels/lyapunov_panels.inc.h"

#include "kernels/chain_lyapunov.inc.h"

#include "kernels/graded.inc.h"

#include "kernels/chain_svdvals.inc.h"

#include "kernels/svdvals_lanes.inc.h"

#include "kernels/svdvals_sweep.inc.h"

#include "kernels/svdvals_kernels.inc.h"

#include "kernels/moments.inc.h"

#include "kernels/correlation.inc.h"

#include "kernels/spectral.inc.h"

#include "kernels/spectral_eigenvalue.inc.h"

#include "kernels/spectral_proof.inc.h"

#include "kernels/spectral_gram.inc.h"

#include "kernels/spectral_lanczos.inc.h"

#include "kernels/sum_squares.inc.h"

#include "kernels/gaussian.inc.h"
