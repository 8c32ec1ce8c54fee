// Four pixels, where they lie, and how an element becomes v_q6 (contract, step 1).
#ifndef BIRTHMARK_CUDA_PIXELS_CUH_
#define BIRTHMARK_CUDA_PIXELS_CUH_

#include <cuda_fp16.h>

#include "cuda/job.h"

namespace birthmark::cuda {

constexpr float kWhite = static_cast<float>(kWhiteQ6);

struct Pixels {
  int value[3][kQuad];  // v_q6 of red, green, blue
};

// Four neighbouring pixels of a batch: the first of them.
struct Place {
  int picture, y, x;
};

__device__ __forceinline__ int Clamp(int v, int low, int high) { return min(max(v, low), high); }

// The integer part of a float in [0, 2^16): what is left in the low bits of the sum.
__device__ __forceinline__ int Truncate(float v) {
  return static_cast<int>(__float_as_uint(__fadd_rz(v, 8388608.0f)) - 0x4b000000U);
}

// Becomes NaN when x is not finite, and otherwise stays 0.
__device__ __forceinline__ void Watch(float x, float& finite) {
  finite = __fmaf_rn(x, 0.0f, finite);
}

// The row of a channel that holds some pixels.
__device__ __forceinline__ const unsigned char* RowOf(const Job& job, int channel,
                                                      const Place& place) {
  const SourcePlane& plane = job.source.channel[channel];
  return plane.data + place.picture * job.picture_stride + place.y * plane.row_stride;
}
// Where one cell of a plane of the target is; `parts` pixels share one in each direction.
__device__ __forceinline__ unsigned char* CellOf(const Job& job, int plane, const Place& place,
                                                 int parts) {
  const TargetPlane& to = job.target.plane[plane];
  return to.data + place.picture * job.out_picture_stride[plane] + place.y / parts * to.row_stride +
         place.x / parts * to.column_stride;
}

// --- Step 1. The intrinsics are never fused: each operation is rounded on its own. ---------------

// An element of a float format as float32, exactly.
__device__ __forceinline__ float Widen(Element element, unsigned bits) {
  switch (element) {
    case Element::kFloat16:
      return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
    case Element::kBfloat16:
      return __uint_as_float(bits << 16);
    default:
      return __uint_as_float(bits);
  }
}

__device__ __forceinline__ float InUnitRange(const Job& job, int channel, float x) {
  return __fadd_rn(__fmul_rn(x, job.source.scale[channel]), job.source.offset[channel]);
}

// kExact: x has so few digits that its product is exact, and may be fused with the sum.
template <bool kExact>
__device__ __forceinline__ int LevelOf(float x, float& finite) {
  Watch(x, finite);
  const float unit = __saturatef(x);
  return Truncate(kExact ? __fmaf_rn(unit, kWhite, 0.5f)
                         : __fadd_rn(__fmul_rn(unit, kWhite), 0.5f));
}

// The bits of an element of so many bytes.
template <int kBytes>
__device__ __forceinline__ unsigned BitsAt(const unsigned char* p) {
  if constexpr (kBytes == 1) return *p;
  if constexpr (kBytes == 2) return *reinterpret_cast<const unsigned short*>(p);
  if constexpr (kBytes == 4) return *reinterpret_cast<const unsigned*>(p);
}
__device__ __forceinline__ unsigned BitsAt(Element element, const unsigned char* p) {
  switch (element) {
    case Element::kUint8:
    case Element::kInt8:
      return BitsAt<1>(p);
    case Element::kFloat32:
      return BitsAt<4>(p);
    default:
      return BitsAt<2>(p);
  }
}

// Any element of any range.
__device__ __forceinline__ int LevelOfBits(const Job& job, int channel, unsigned bits,
                                           float& finite) {
  const Source& source = job.source;
  float x = 0.0f;
  if (source.element == Element::kUint8 || source.element == Element::kInt8) {
    const int q =
        source.element == Element::kUint8 ? static_cast<int>(bits) : static_cast<signed char>(bits);
    x = __fmul_rn(static_cast<float>(q - source.zero_point), source.quantum);
  } else {
    x = Widen(source.element, bits);
  }
  return LevelOf<false>(InUnitRange(job, channel, x), finite);
}

}  // namespace birthmark::cuda

#endif  // BIRTHMARK_CUDA_PIXELS_CUH_
