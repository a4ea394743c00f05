#define JM_FAMILY norms
#include "avx2.inc.h"
