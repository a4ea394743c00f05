#define JM_FAMILY moments
#include "avx2.inc.h"
