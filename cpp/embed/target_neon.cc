// The kernel for one instruction set: its lanes, the stages, one exported table.
#include <arm_neon.h>

#include <cstring>
#include <utility>

#include "embed/job.h"
#include "embed/kernels.h"

namespace birthmark {
namespace {

#include "embed/lanes_neon.inc"
#include "embed/stages.inc"

}  // namespace

constinit const Kernel kNeonKernel = {Embed, Statistics, Fields, LoadRow, LumaRow};

}  // namespace birthmark
