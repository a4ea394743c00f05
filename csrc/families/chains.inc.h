/* Products of a chain, and vectors through it: for one JM_T. */
#include "simd.inc.h"

#include "kernels/scaling.inc.h"

#include "kernels/chain_step.inc.h"

#include "kernels/product_block.inc.h"

#include "kernels/product_run.inc.h"

#include "kernels/product_registers.inc.h"

#include "kernels/product_lanes.inc.h"

#include "kernels/chain_product.inc.h"

#include "kernels/vector_rows.inc.h"

#include "kernels/vector_steps.inc.h"

#include "kernels/chain_vectors.inc.h"
