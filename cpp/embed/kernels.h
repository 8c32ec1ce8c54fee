// The kernels that this build holds, by name.
#ifndef BIRTHMARK_EMBED_KERNELS_H_
#define BIRTHMARK_EMBED_KERNELS_H_

#include "embed/dispatch.h"
#include "embed/job.h"

namespace birthmark {

extern const Kernel kScalarKernel;
extern const Kernel kSse4Kernel;
extern const Kernel kAvx2Kernel;
extern const Kernel kAvx512Kernel;
extern const Kernel kAvx512VnniKernel;
extern const Kernel kNeonKernel;

// The kernel for an instruction set; null when this build does not hold it.
const Kernel* KernelFor(Isa isa);

}  // namespace birthmark

#endif  // BIRTHMARK_EMBED_KERNELS_H_
