#define JM_FAMILY chains
#include "avx512.inc.h"
