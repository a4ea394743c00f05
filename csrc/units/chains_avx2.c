#define JM_FAMILY chains
#include "avx2.inc.h"
