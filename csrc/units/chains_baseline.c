#define JM_FAMILY chains
#include "baseline.inc.h"
