#define JM_FAMILY norms
#include "avx512.inc.h"
