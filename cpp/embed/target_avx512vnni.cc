// The kernel for one instruction set: its lanes, the stages, one exported table.
#include <immintrin.h>

#include <cstring>
#include <utility>

#include "embed/job.h"
#include "embed/kernels.h"

namespace birthmark {
namespace {

#include "embed/lanes_avx512.inc"
#include "embed/stages.inc"

}  // namespace

constinit const Kernel kAvx512VnniKernel = {Embed, Statistics, Fields, LoadRow, LumaRow};

}  // namespace birthmark
