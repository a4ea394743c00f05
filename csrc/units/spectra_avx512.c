#define JM_FAMILY spectra
#include "avx512.inc.h"
