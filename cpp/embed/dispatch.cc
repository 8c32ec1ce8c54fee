#include "embed/dispatch.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#define BIRTHMARK_X86 1
#endif

namespace birthmark {
namespace {

constexpr uint32_t Bit(int index) { return uint32_t{1} << index; }

// Leaf 1, ECX. The first two lines are x86-64-v2, the others come with v3.
constexpr uint32_t kSse3 = Bit(0), kSsse3 = Bit(9), kCmpxchg16b = Bit(13), kSse41 = Bit(19),
                   kSse42 = Bit(20), kPopcnt = Bit(23);
constexpr uint32_t kFma = Bit(12), kMovbe = Bit(22), kOsxsave = Bit(27), kAvx = Bit(28),
                   kF16c = Bit(29);
// Leaf 7, EBX.
constexpr uint32_t kBmi1 = Bit(3), kAvx2 = Bit(5), kBmi2 = Bit(8);
constexpr uint32_t kAvx512f = Bit(16), kAvx512dq = Bit(17), kAvx512cd = Bit(28),
                   kAvx512bw = Bit(30), kAvx512vl = Bit(31);
// Leaf 7, ECX.
constexpr uint32_t kAvx512Vbmi = Bit(1), kAvx512Vnni = Bit(11);
// Leaf 0x80000001, ECX.
constexpr uint32_t kLahf = Bit(0), kLzcnt = Bit(5);
// XCR0: register files that the operating system saves.
constexpr uint64_t kXmm = Bit(1), kYmm = Bit(2);
constexpr uint64_t kOpmask = Bit(5), kZmmLow16Upper = Bit(6), kZmmHigh16 = Bit(7);

constexpr uint32_t kV2Leaf1 = kSse3 | kSsse3 | kCmpxchg16b | kSse41 | kSse42 | kPopcnt;
constexpr uint32_t kV2Leaf80000001 = kLahf;
constexpr uint32_t kV3Leaf1 = kFma | kMovbe | kOsxsave | kAvx | kF16c;
constexpr uint32_t kV3Leaf7 = kBmi1 | kAvx2 | kBmi2;
constexpr uint32_t kV3Leaf80000001 = kLzcnt;
constexpr uint64_t kV3Xcr0 = kXmm | kYmm;
constexpr uint32_t kV4Leaf7 = kAvx512f | kAvx512dq | kAvx512cd | kAvx512bw | kAvx512vl;
constexpr uint64_t kV4Xcr0 = kOpmask | kZmmLow16Upper | kZmmHigh16;

template <class Word>
constexpr bool HasAll(Word word, Word wanted) {
  return (word & wanted) == wanted;
}

#ifdef BIRTHMARK_X86
// XGETBV with ECX = 0. Only allowed after OSXSAVE was seen. Spelled in assembly so that this file
// needs no -mxsave and stays runnable on every x86-64 machine.
uint64_t ReadXcr0() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}
#endif

}  // namespace

std::string_view IsaName(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kSse4:
      return "sse4";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Vnni:
      return "avx512vnni";
    case Isa::kNeon:
      return "neon";
  }
  return "";
}

std::optional<Isa> IsaFromName(std::string_view name) {
  for (Isa isa : kAllIsas) {
    if (IsaName(isa) == name) return isa;
  }
  return std::nullopt;
}

X86Features ReadX86Features() {
  X86Features features;
#ifdef BIRTHMARK_X86
  uint32_t eax = 0;
  uint32_t ebx = 0;
  uint32_t ecx = 0;
  uint32_t edx = 0;
  // __get_cpuid* return 0, and leave the registers alone, where the leaf does not exist.
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx)) features.leaf1_ecx = ecx;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) {
    features.leaf7_ebx = ebx;
    features.leaf7_ecx = ecx;
  }
  if (__get_cpuid(0x80000001U, &eax, &ebx, &ecx, &edx)) features.leaf80000001_ecx = ecx;
  if (HasAll(features.leaf1_ecx, kOsxsave)) features.xcr0 = ReadXcr0();
#endif
  return features;
}

// Every x86-64 system saves the registers that this level uses.
bool AllowsX86V2(const X86Features& features) {
  return HasAll(features.leaf1_ecx, kV2Leaf1) && HasAll(features.leaf80000001_ecx, kV2Leaf80000001);
}

bool AllowsX86V3(const X86Features& features) {
  return AllowsX86V2(features) && HasAll(features.leaf1_ecx, kV3Leaf1) &&
         HasAll(features.leaf7_ebx, kV3Leaf7) &&
         HasAll(features.leaf80000001_ecx, kV3Leaf80000001) && HasAll(features.xcr0, kV3Xcr0);
}

bool AllowsX86V4(const X86Features& features) {
  return AllowsX86V3(features) && HasAll(features.leaf7_ebx, kV4Leaf7) &&
         HasAll(features.xcr0, kV4Xcr0);
}

bool AllowsX86V4Vnni(const X86Features& features) {
  return AllowsX86V4(features) && HasAll(features.leaf7_ecx, kAvx512Vnni | kAvx512Vbmi);
}

bool IsaIsBuilt(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return true;
    case Isa::kSse4:
#ifdef BIRTHMARK_HAVE_SSE4
      return true;
#else
      return false;
#endif
    case Isa::kAvx2:
#ifdef BIRTHMARK_HAVE_AVX2
      return true;
#else
      return false;
#endif
    case Isa::kAvx512:
#ifdef BIRTHMARK_HAVE_AVX512
      return true;
#else
      return false;
#endif
    case Isa::kAvx512Vnni:
#ifdef BIRTHMARK_HAVE_AVX512VNNI
      return true;
#else
      return false;
#endif
    case Isa::kNeon:
#ifdef BIRTHMARK_HAVE_NEON
      return true;
#else
      return false;
#endif
  }
  return false;
}

bool IsaIsUsable(Isa isa) {
  if (!IsaIsBuilt(isa)) return false;
  switch (isa) {
    case Isa::kScalar:
    case Isa::kNeon:  // part of every 64-bit Arm processor, and always saved
      return true;
    case Isa::kSse4:
      return AllowsX86V2(ReadX86Features());
    case Isa::kAvx2:
      return AllowsX86V3(ReadX86Features());
    case Isa::kAvx512:
      return AllowsX86V4(ReadX86Features());
    case Isa::kAvx512Vnni:
      return AllowsX86V4Vnni(ReadX86Features());
  }
  return false;
}

Isa BestIsa() {
  Isa best = Isa::kScalar;
  for (Isa isa : kAllIsas) {
    if (IsaIsUsable(isa)) best = isa;
  }
  return best;
}

}  // namespace birthmark
