// Which instruction sets this build holds, and which of them this machine can run.
#ifndef BIRTHMARK_EMBED_DISPATCH_H_
#define BIRTHMARK_EMBED_DISPATCH_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace birthmark {

// Plainest first; a later one is faster wherever it runs.
enum class Isa { kScalar, kSse4, kAvx2, kAvx512, kAvx512Vnni, kNeon };

inline constexpr std::array kAllIsas = {Isa::kScalar, Isa::kSse4,       Isa::kAvx2,
                                        Isa::kAvx512, Isa::kAvx512Vnni, Isa::kNeon};

// "scalar", "sse4", "avx2", "avx512", "avx512vnni" or "neon".
std::string_view IsaName(Isa isa);

// The inverse of IsaName; nothing for any other name.
std::optional<Isa> IsaFromName(std::string_view name);

// The x86 registers that decide: what the processor has (cpuid) and which registers the operating
// system saves when it switches threads (XCR0). All zero on other machines.
struct X86Features {
  uint32_t leaf1_ecx = 0;
  uint32_t leaf7_ebx = 0;
  uint32_t leaf7_ecx = 0;
  uint32_t leaf80000001_ecx = 0;
  uint64_t xcr0 = 0;  // 0 unless the operating system enabled XSAVE
};

// Reads them from the machine.
X86Features ReadX86Features();

// True when the registers allow kernels built for x86-64-v2, v3 or v4: every feature bit of that
// level, and an operating system that saves the wide registers.
bool AllowsX86V2(const X86Features& features);
bool AllowsX86V3(const X86Features& features);
bool AllowsX86V4(const X86Features& features);
// The same as V4, the multiply-add of 16-bit pairs (AVX512_VNNI), and permuted bytes (AVX512_VBMI).
bool AllowsX86V4Vnni(const X86Features& features);

// Compiled into this library.
bool IsaIsBuilt(Isa isa);

// Built, and safe to run here: processor and operating system both agree. Asks the machine anew at
// each call and keeps nothing, so call it when a context is made, not in a loop.
bool IsaIsUsable(Isa isa);

// The fastest usable instruction set; at worst Isa::kScalar.
Isa BestIsa();

}  // namespace birthmark

#endif  // BIRTHMARK_EMBED_DISPATCH_H_
