// core/math.h for kernels: the same operations in the same order, so that a device and a processor round alike.
#pragma once

#include <cuda_runtime.h>

#include "core/math.h"
#include "core/philox.h"
