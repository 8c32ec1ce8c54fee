// The numbers of CONTRACT.md. Everything that computes the mark includes this file and no other
// copy of these values exists in C++.
#ifndef BIRTHMARK_CONTRACT_ARITHMETIC_H_
#define BIRTHMARK_CONTRACT_ARITHMETIC_H_

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define BM_INLINE __host__ __device__ __forceinline__
#else
#define BM_INLINE static inline
#endif

namespace birthmark {

// Raised whenever a published byte or a statistic could differ for the same input.
inline constexpr int kContractVersion = 2;

// Step 1 to 4: pixels and luma.
inline constexpr int kWhiteQ6 = 255 * 64;
inline constexpr int kLumaRed = 9798, kLumaGreen = 19235, kLumaBlue = 3735;
inline constexpr int kGreyQ2 = 512;

// An 8-bit value that stands for itself is a multiple of this.
inline constexpr float kByteQuantum = 1.0f / 255.0f;

// Step 1: the bits of a float16 as float32, exactly. Nothing here is a denormal float32, so no mode
// of a processor can flush it.
BM_INLINE float WidenHalf(std::uint16_t half) {
  constexpr std::uint32_t kRebias = 112U << 23, kLeast = 113U << 23;
  const std::uint32_t magnitude = static_cast<std::uint32_t>(half & 0x7fff) << 13;
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000) << 16;
  const std::uint32_t exponent = magnitude & 0x0f800000;
  std::uint32_t bits = magnitude + kRebias;
  if (exponent == 0) {
    const float value = __builtin_bit_cast(float, magnitude + kLeast);
    bits = __builtin_bit_cast(std::uint32_t, value - __builtin_bit_cast(float, kLeast));
  } else if (exponent == 0x0f800000) {
    bits += kRebias;  // infinite, or no number
  }
  return __builtin_bit_cast(float, bits | sign);
}

// Step 5 to 8: the filters' reach, and the texture's normalisation.
inline constexpr int kSmoothReach = 4;    // K9
inline constexpr int kActivityReach = 7;  // K15
inline constexpr float kTextureScale = 524288.0f;
inline constexpr int kActivityFloorQ14 = 6 << 14;
inline constexpr int kTextureMax = 2047;

// Step 6 and 9: tones and orbits.
inline constexpr int kTones = 16;
inline constexpr int kRadius = 5;
inline constexpr int kRadiusSquaredMax = 32;
inline constexpr int kTapDistance = 2;
inline constexpr int kEchoReach = kRadius * kTapDistance;

struct Orbit {
  int i, j;  // 0 <= j <= i
};

BM_INLINE constexpr int CountOrbits() {
  int count = 0;
  for (int i = 1; i <= kRadius; ++i) {
    for (int j = 0; j <= i; ++j) count += i * i + j * j <= kRadiusSquaredMax;
  }
  return count;
}
inline constexpr int kOrbits = CountOrbits();

struct OrbitTable {
  Orbit at[static_cast<std::size_t>(kOrbits)] = {};
};
BM_INLINE constexpr OrbitTable MakeOrbits() {
  OrbitTable table;
  int o = 0;
  for (int i = 1; i <= kRadius; ++i) {
    for (int j = 0; j <= i; ++j) {
      if (i * i + j * j <= kRadiusSquaredMax) table.at[o++] = {i, j};
    }
  }
  return table;
}
inline constexpr OrbitTable kOrbitTable = MakeOrbits();

// Step 10: what a tint is made of: a constant, blueness, redness, roughness.
inline constexpr int kTintFields = 4;
inline constexpr int kHueMaxQ6 = 48 * 64;
inline constexpr int kRoughnessMax = 15;

// A mark's gains: a row for each orbit, then one for each field of red's tint, of green's, of
// blue's. Step 11 and 12: their bounds, and those of tint and residual.
inline constexpr int kGainRows = kOrbits + 3 * kTintFields;
inline constexpr int kTapSumMax = 60000;
inline constexpr int kTintGainMax = 16384;
inline constexpr int kTintMaxQ6 = 64;
inline constexpr int kResidualMaxQ6 = 128;

// Step 19: which pixels lie on a line. Gradients are of two pixels, in eighths of a grey level; no
// sum over a window of theirs leaves 32 bits.
inline constexpr int kLineReach = 4;
inline constexpr int kGradientUnitQ6 = 8;
inline constexpr int kLineFloor = 6221;
inline constexpr float kLineShare = 0.25f;
static_assert(std::int64_t{2} * (16384 / kGradientUnitQ6) * (16384 / kGradientUnitQ6) *
                      (2 * kLineReach + 1) * (2 * kLineReach + 1) +
                  kLineFloor <
              std::int64_t{1} << 31);

// Step 20: apart from lines, then on them; in each a column for each orbit, and the energy.
inline constexpr int kParts = 2;
inline constexpr int kStatistics = kOrbits + 1;
inline constexpr int kAllStatistics = kParts * kTones * kStatistics;

// Step 16 to 18: luma and colour differences, in Q15.
struct YuvWeights {
  int red, blue;
  int luma, luma_offset_q6;
  int cb, cr;
};
inline constexpr YuvWeights kYuvWeights[2][2] = {
    // full range, limited range
    {{9798, 3735, 32767, 0, 18492, 23372}, {9798, 3735, 28142, 1024, 16244, 20531}},   // BT.601
    {{6966, 2366, 32767, 0, 17659, 20808}, {6966, 2366, 28142, 1024, 15512, 18278}}};  // BT.709
inline constexpr int kMiddleQ6 = 128 * 64;

// How far a published pixel looks: echo, then activity, then smoothing.
inline constexpr int kHalo = kEchoReach + kActivityReach + kSmoothReach;

BM_INLINE constexpr int MulRound15(int a, int b) { return (a * b + (1 << 14)) >> 15; }

}  // namespace birthmark

#endif  // BIRTHMARK_CONTRACT_ARITHMETIC_H_
