#define JM_FAMILY spectra
#include "avx2.inc.h"
