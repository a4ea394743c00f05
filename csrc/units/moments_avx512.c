#define JM_FAMILY moments
#include "avx512.inc.h"
