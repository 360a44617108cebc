#include "common.h"

ParallelFor* rmiseg_parallel_for = nullptr;

extern "C" void rmiseg_use_threads(ParallelFor* function) { rmiseg_parallel_for = function; }
