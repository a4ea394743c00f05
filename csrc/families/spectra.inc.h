/* Singular values and Lyapunov exponents of chains: for one JM_T. */
#include "simd.inc.h"

#include "kernels/scaling.inc.h"

#include "kernels/chain_step.inc.h"

#include "kernels/lyapunov_columns.inc.h"

#include "kernels/lyapunov_lanes.inc.h"

#include "kernels/lyapunov_panels.inc.h"

#include "kernels/chain_lyapunov.inc.h"

#include "kernels/graded.inc.h"

#include "kernels/chain_svdvals.inc.h"

#include "kernels/svdvals_lanes.inc.h"

#include "kernels/svdvals_sweep.inc.h"

#include "kernels/svdvals_kernels.inc.h"
