// How four pixels come in and go out: one struct for each format. A source has
//   Raw          what was read of four pixels, still unconverted, so that it can be read ahead
//   Fetch        reads four pixels of a row at once
//   FetchSingly  the same one by one, columns outside the picture at its nearest edge. Rare, and
//   out
//                of line, or its instructions would be in everybody's way
//   Convert      contract step 1
// and a sink has Store and StoreSingly.
#ifndef BIRTHMARK_CUDA_FORMATS_CUH_
#define BIRTHMARK_CUDA_FORMATS_CUH_

#include <cuda_fp16.h>

#include "cuda/job.h"

namespace birthmark::cuda {

constexpr float kWhite = static_cast<float>(kWhiteQ6);

struct Pixels {
  int value[3][kQuad];  // v_q6 of red, green, blue
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

struct PlanarFloat {
  struct Raw {
    float4 plane[3];
  };
  static __device__ __forceinline__ Raw Fetch(const Job& job, std::ptrdiff_t row, int x) {
    Raw raw;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      raw.plane[c] = reinterpret_cast<const float4*>(job.planes[c] + row)[x / kQuad];
    }
    return raw;
  }
  static __device__ __noinline__ Raw FetchSingly(const Job& job, std::ptrdiff_t row, int x) {
    Raw raw;
    for (int c = 0; c < 3; ++c) {
      const float* const p = reinterpret_cast<const float*>(job.planes[c] + row);
      const auto at = [&](int i) { return p[Clamp(x + i, 0, job.width - 1)]; };
      raw.plane[c] = make_float4(at(0), at(1), at(2), at(3));
    }
    return raw;
  }
  static __device__ __forceinline__ Pixels Convert(const Raw& raw, float& finite) {
    Pixels pixels;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      const float x[kQuad] = {raw.plane[c].x, raw.plane[c].y, raw.plane[c].z, raw.plane[c].w};
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        Watch(x[i], finite);
        // The intrinsics are never fused: each operation is rounded on its own.
        pixels.value[c][i] = Truncate(__fadd_rn(__fmul_rn(__saturatef(x[i]), kWhite), 0.5f));
      }
    }
    return pixels;
  }
};

struct PlanarHalf {
  struct Raw {
    uint2 plane[3];
  };
  static __device__ __forceinline__ Raw Fetch(const Job& job, std::ptrdiff_t row, int x) {
    Raw raw;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      raw.plane[c] = reinterpret_cast<const uint2*>(job.planes[c] + row)[x / kQuad];
    }
    return raw;
  }
  static __device__ __noinline__ Raw FetchSingly(const Job& job, std::ptrdiff_t row, int x) {
    Raw raw;
    for (int c = 0; c < 3; ++c) {
      const unsigned short* const p = reinterpret_cast<const unsigned short*>(job.planes[c] + row);
      const auto at = [&](int i) { return unsigned{p[Clamp(x + i, 0, job.width - 1)]}; };
      raw.plane[c] = make_uint2(at(0) | at(1) << 16, at(2) | at(3) << 16);
    }
    return raw;
  }
  static __device__ __forceinline__ Pixels Convert(const Raw& raw, float& finite) {
    Pixels pixels;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      const unsigned words[2] = {raw.plane[c].x, raw.plane[c].y};
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        const unsigned short bits = static_cast<unsigned short>(words[i / 2] >> (16 * (i % 2)));
        const float x = __half2float(__ushort_as_half(bits));
        Watch(x, finite);
        // A product of 11 and 8 bits: exact, so that it may be fused with the sum.
        pixels.value[c][i] = Truncate(__fmaf_rn(__saturatef(x), kWhite, 0.5f));
      }
    }
    return pixels;
  }
};

struct Rgb8 {
  struct Raw {
    unsigned word[3];
  };
  static __device__ __forceinline__ Raw Fetch(const Job& job, std::ptrdiff_t row, int x) {
    const unsigned* const words = reinterpret_cast<const unsigned*>(job.planes[0] + row);
    Raw raw;
#pragma unroll
    for (int i = 0; i < 3; ++i) raw.word[i] = words[std::ptrdiff_t{3} * (x / kQuad) + i];
    return raw;
  }
  static __device__ __noinline__ Raw FetchSingly(const Job& job, std::ptrdiff_t row, int x) {
    const unsigned char* const p = job.planes[0] + row;
    Raw raw = {};
    for (int at = 0; at < 3 * kQuad; ++at) {
      const int column = Clamp(x + at / 3, 0, job.width - 1);
      raw.word[at / 4] |= unsigned{p[std::ptrdiff_t{3} * column + at % 3]} << (8 * (at % 4));
    }
    return raw;
  }
  static __device__ __forceinline__ Pixels Convert(const Raw& raw, float&) {
    Pixels pixels;
#pragma unroll
    for (int at = 0; at < 3 * kQuad; ++at) {
      pixels.value[at % 3][at / 3] = static_cast<int>(raw.word[at / 4] >> (8 * (at % 4)) & 0xffU)
                                     << 6;
    }
    return pixels;
  }

  // Contract step 13, four bytes to a word.
  static __device__ __forceinline__ Raw Publish(const Pixels& pixels) {
    Raw raw = {};
#pragma unroll
    for (int at = 0; at < 3 * kQuad; ++at) {
      const int v_q6 = pixels.value[at % 3][at / 3];
      raw.word[at / 4] |= static_cast<unsigned>(Clamp((v_q6 + 32) >> 6, 0, 255)) << (8 * (at % 4));
    }
    return raw;
  }
  static __device__ __forceinline__ void Store(unsigned char* row, int x, const Raw& raw) {
    unsigned* const words = reinterpret_cast<unsigned*>(row) + std::ptrdiff_t{3} * (x / kQuad);
#pragma unroll
    for (int i = 0; i < 3; ++i) __stcs(words + i, raw.word[i]);
  }
  static __device__ __noinline__ void StoreSingly(unsigned char* row, int x, int width,
                                                  const Raw& raw) {
    for (int at = 0; at < 3 * kQuad; ++at) {
      if (x + at / 3 >= width) return;
      row[std::ptrdiff_t{3} * x + at] =
          static_cast<unsigned char>(raw.word[at / 4] >> (8 * (at % 4)));
    }
  }
};

}  // namespace birthmark::cuda

#endif  // BIRTHMARK_CUDA_FORMATS_CUH_
