// The choice of instruction set: names, and every single feature bit that can forbid a kernel.
#include <cstdio>

#include "embed/dispatch.h"
#include "tests/cpp/check.h"

namespace {

using birthmark::Isa;
using birthmark::X86Features;

constexpr X86Features kEverything = {~0U, ~0U, ~0U, ~0U, ~uint64_t{0}};

void NamesAreTheirOwnInverse() {
  for (Isa isa : birthmark::kAllIsas) CHECK(birthmark::IsaFromName(birthmark::IsaName(isa)) == isa);
  CHECK(!birthmark::IsaFromName("sse2"));
  CHECK(!birthmark::IsaFromName(""));
  CHECK(!birthmark::IsaFromName("AVX2"));
}

// How many single bits of one register, cleared alone, turn the answer to no.
template <class Word>
int CountDecisive(Word X86Features::* field, bool (*allows)(const X86Features&)) {
  int decisive = 0;
  for (int bit = 0; bit < static_cast<int>(8 * sizeof(Word)); ++bit) {
    X86Features features = kEverything;
    features.*field &= ~(Word{1} << bit);
    decisive += allows(features) ? 0 : 1;
  }
  return decisive;
}

void EveryBitOfTheLevelIsAsked() {
  using birthmark::AllowsX86V2;
  using birthmark::AllowsX86V3;
  using birthmark::AllowsX86V4;
  using birthmark::AllowsX86V4Vnni;
  CHECK(AllowsX86V4Vnni(kEverything));
  CHECK(!AllowsX86V2({}));
  CHECK(CountDecisive(&X86Features::leaf1_ecx, AllowsX86V2) == 6);
  CHECK(CountDecisive(&X86Features::leaf7_ebx, AllowsX86V2) == 0);
  CHECK(CountDecisive(&X86Features::leaf80000001_ecx, AllowsX86V2) == 1);
  CHECK(CountDecisive(&X86Features::xcr0, AllowsX86V2) == 0);
  CHECK(CountDecisive(&X86Features::leaf1_ecx, AllowsX86V3) == 11);
  CHECK(CountDecisive(&X86Features::leaf7_ebx, AllowsX86V3) == 3);
  CHECK(CountDecisive(&X86Features::leaf80000001_ecx, AllowsX86V3) == 2);
  CHECK(CountDecisive(&X86Features::xcr0, AllowsX86V3) == 2);
  CHECK(CountDecisive(&X86Features::leaf1_ecx, AllowsX86V4) == 11);
  CHECK(CountDecisive(&X86Features::leaf7_ebx, AllowsX86V4) == 8);
  CHECK(CountDecisive(&X86Features::leaf80000001_ecx, AllowsX86V4) == 2);
  CHECK(CountDecisive(&X86Features::xcr0, AllowsX86V4) == 5);
  CHECK(CountDecisive(&X86Features::leaf7_ecx, AllowsX86V4) == 0);
  CHECK(CountDecisive(&X86Features::leaf7_ecx, AllowsX86V4Vnni) == 2);
  CHECK(CountDecisive(&X86Features::leaf7_ebx, AllowsX86V4Vnni) == 8);
  CHECK(CountDecisive(&X86Features::xcr0, AllowsX86V4Vnni) == 5);
}

// A processor with AVX-512 under a system that saves only XMM, or only XMM and YMM.
void TheOperatingSystemHasASay() {
  X86Features features = kEverything;
  features.xcr0 = 0b11;
  CHECK(!birthmark::AllowsX86V3(features));
  features.xcr0 = 0b111;
  CHECK(birthmark::AllowsX86V3(features));
  CHECK(!birthmark::AllowsX86V4(features));
}

void ThisMachineHasAKernel() {
  CHECK(birthmark::IsaIsUsable(Isa::kScalar));
  CHECK(birthmark::IsaIsUsable(birthmark::BestIsa()));
  for (Isa isa : birthmark::kAllIsas) {
    CHECK(!birthmark::IsaIsUsable(isa) || birthmark::IsaIsBuilt(isa));
  }
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
  // A second opinion. It may say less than we do, never more.
  if (birthmark::IsaIsUsable(Isa::kSse4)) CHECK(__builtin_cpu_supports("sse4.1"));
  if (birthmark::IsaIsUsable(Isa::kAvx2)) CHECK(__builtin_cpu_supports("avx2"));
  if (birthmark::IsaIsUsable(Isa::kAvx512)) CHECK(__builtin_cpu_supports("avx512vl"));
  if (birthmark::IsaIsUsable(Isa::kAvx512Vnni)) {
    CHECK(__builtin_cpu_supports("avx512vnni"));
    CHECK(__builtin_cpu_supports("avx512vbmi"));
  }
#endif
#if defined(__aarch64__)
  CHECK(birthmark::BestIsa() == Isa::kNeon);
#endif
}

}  // namespace

int main() {
  NamesAreTheirOwnInverse();
  EveryBitOfTheLevelIsAsked();
  TheOperatingSystemHasASay();
  ThisMachineHasAKernel();
  for (Isa isa : birthmark::kAllIsas) {
    std::printf("%-10s built %d usable %d\n", birthmark::IsaName(isa).data(),
                birthmark::IsaIsBuilt(isa), birthmark::IsaIsUsable(isa));
  }
  std::puts("dispatch: ok");
  return 0;
}
