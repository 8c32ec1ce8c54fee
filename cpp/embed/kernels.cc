#include "embed/kernels.h"

namespace birthmark {

const Kernel* KernelFor(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return &kScalarKernel;
#ifdef BIRTHMARK_HAVE_SSE4
    case Isa::kSse4:
      return &kSse4Kernel;
#endif
#ifdef BIRTHMARK_HAVE_AVX2
    case Isa::kAvx2:
      return &kAvx2Kernel;
#endif
#ifdef BIRTHMARK_HAVE_AVX512
    case Isa::kAvx512:
      return &kAvx512Kernel;
#endif
#ifdef BIRTHMARK_HAVE_AVX512VNNI
    case Isa::kAvx512Vnni:
      return &kAvx512VnniKernel;
#endif
#ifdef BIRTHMARK_HAVE_NEON
    case Isa::kNeon:
      return &kNeonKernel;
#endif
    default:
      return nullptr;
  }
}

}  // namespace birthmark
