#define JM_FAMILY spectra
#include "baseline.inc.h"
