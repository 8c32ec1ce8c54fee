// Kernels that can load a float with one rounding where the contract has two (step 1). Both ways
// never fall as x grows, so they agree on all of [0, 1] if they agree around each place where
// either steps up.
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "contract/arithmetic.h"

namespace {

constexpr float kScale = static_cast<float>(birthmark::kWhiteQ6);

int RoundedTwice(float x) {
  // Kept from being fused by -ffp-contract=off.
  return static_cast<int>(x * kScale + 0.5f);
}
int RoundedOnce(float x) { return static_cast<int>(std::fmaf(x, kScale, 0.5f)); }

// The first float for which `load` gives `value` or more.
float FirstWith(int value, int (*load)(float)) {
  float x = static_cast<float>((value - 0.5) / kScale);
  while (load(x) >= value) x = std::nextafter(x, 0.0f);
  while (load(x) < value) x = std::nextafter(x, 1.0f);
  return x;
}

}  // namespace

int main() {
  if (RoundedTwice(0.0f) != 0 || RoundedOnce(0.0f) != 0) return 1;
  if (RoundedTwice(1.0f) != birthmark::kWhiteQ6 || RoundedOnce(1.0f) != birthmark::kWhiteQ6)
    return 1;
  for (int value = 1; value <= birthmark::kWhiteQ6; ++value) {
    const float twice = FirstWith(value, RoundedTwice), once = FirstWith(value, RoundedOnce);
    if (twice != once) {
      std::fprintf(stderr, "%d begins at %.9g or at %.9g\n", value, static_cast<double>(twice),
                   static_cast<double>(once));
      return 1;
    }
  }
  std::puts("load: ok");
  return 0;
}
