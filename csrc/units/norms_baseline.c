#define JM_FAMILY norms
#include "baseline.inc.h"
