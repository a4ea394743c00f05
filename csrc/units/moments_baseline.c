#define JM_FAMILY moments
#include "baseline.inc.h"
