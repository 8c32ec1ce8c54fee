// The emulator's stand-in for CUDA's header of this name: float16 as far as cpp/cuda uses it.
#ifndef BIRTHMARK_CUDA_EMULATOR_CUDA_FP16_H_
#define BIRTHMARK_CUDA_EMULATOR_CUDA_FP16_H_

#include <cmath>
#include <limits>

struct __half {
  unsigned short bits;
};
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline float __half2float(__half half) {
  const int exponent = half.bits >> 10 & 31, fraction = half.bits & 1023;
  const float magnitude = exponent == 31 ? (fraction == 0 ? std::numeric_limits<float>::infinity()
                                                          : std::numeric_limits<float>::quiet_NaN())
                          : exponent == 0
                              ? std::ldexp(static_cast<float>(fraction), -24)
                              : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
  return (half.bits & 0x8000) != 0 ? -magnitude : magnitude;
}

#endif  // BIRTHMARK_CUDA_EMULATOR_CUDA_FP16_H_
