// How four pixels go out. A writer has
//   Writes       whether it writes such a target
//   kPlanes      to so many planes it writes four pixels at once,
//   kAlign       where addresses and strides are multiples of this
//   Store        publishes the four marked pixels of a row. Rows come one below the other
#ifndef BIRTHMARK_CUDA_WRITERS_CUH_
#define BIRTHMARK_CUDA_WRITERS_CUH_

#include "cuda/pixels.cuh"

namespace birthmark::cuda {

constexpr int kGreyRed = kYuvWeights[0][0].red, kGreyBlue = kYuvWeights[0][0].blue;

// Three bytes a pixel: red, green, blue (contract step 12).
class PackedWriter {
 public:
  static constexpr int kPlanes = 1, kAlign = 4;

  static bool Writes(const Target& target) {
    for (int c = 0; c < 3; ++c) {
      const TargetPlane& plane = target.plane[c];
      if (plane.column_stride != 3 || plane.row_stride != target.plane[0].row_stride ||
          plane.data != target.plane[0].data + c) {
        return false;
      }
    }
    return target.colours == Colours::kRgb && target.element == Element::kUint8 &&
           target.plane[3].data == nullptr;
  }
  __device__ __forceinline__ void Store(const Job& job, const Place& place, bool whole,
                                        const Pixels& pixels, float&) {
    Bytes bytes = {};
#pragma unroll
    for (int at = 0; at < 3 * kQuad; ++at) {
      const int v_q6 = pixels.value[at % 3][at / 3];
      bytes.word[at / 4] |= static_cast<unsigned>(Clamp((v_q6 + 32) >> 6, 0, 255))
                            << (8 * (at % 4));
    }
    unsigned char* const out = CellOf(job, 0, place, 1);
    if (!whole) return StoreSingly(out, job.source.width - place.x, bytes);
#pragma unroll
    for (int i = 0; i < 3; ++i) __stcs(reinterpret_cast<unsigned*>(out) + i, bytes.word[i]);
  }

 private:
  struct Bytes {
    unsigned word[3];
  };
  static __device__ __noinline__ void StoreSingly(unsigned char* out, int pixels, Bytes bytes) {
    for (int at = 0; at < 3 * kQuad && at / 3 < pixels; ++at) {
      out[at] = static_cast<unsigned char>(bytes.word[at / 4] >> (8 * (at % 4)));
    }
  }
};

// Everything (contract steps 14 to 18).
class AnyWriter {
 public:
  static constexpr int kPlanes = 0, kAlign = 1;

  static bool Writes(const Target&) { return true; }
  __device__ __forceinline__ void Store(const Job& job, const Place& place, bool,
                                        const Pixels& pixels, float& finite) {
    const int count = min(kQuad, job.source.width - place.x);
    int marked[3][kQuad];
#pragma unroll
    for (int c = 0; c < 3; ++c) {
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        marked[c][i] = Clamp(pixels.value[c][i], 0, kWhiteQ6);
      }
    }
    switch (job.target.colours) {
      case Colours::kRgb:
#pragma unroll
        for (int c = 0; c < 3; ++c) StoreChannel(job, place, c, marked[c], count);
        if (job.target.plane[3].data != nullptr) StoreAlpha(job, place, count, finite);
        break;
      case Colours::kGrey: {
        int grey[kQuad];
#pragma unroll
        for (int i = 0; i < kQuad; ++i) {
          grey[i] = Clamp(GreyOf(marked[0][i], marked[1][i], marked[2][i], kGreyRed, kGreyBlue), 0,
                          kWhiteQ6);
        }
        StoreChannel(job, place, 0, grey, count);
        break;
      }
      case Colours::kYuv:
        StoreLuma(job, place, marked, count);
        // The last row of an odd number stands for the one that is missing below it.
        if (place.y % 2 != 0 || place.y + 1 == job.source.height) {
          StoreDifferences(job, place, marked, count);
        } else {
#pragma unroll
          for (int c = 0; c < 3; ++c) {
#pragma unroll
            for (int i = 0; i < kQuad; i += 2) {
              above_[c][i / 2] = static_cast<unsigned>(marked[c][i]) |
                                 static_cast<unsigned>(marked[c][i + 1]) << 16;
            }
          }
        }
        break;
    }
  }

 private:
  static __device__ __forceinline__ int GreyOf(int r, int g, int b, int red, int blue) {
    return g + MulRound15(r - g, red) + MulRound15(b - g, blue);
  }

  // The first `count` of four cells that are `step` bytes apart, each cell's bits in its own word.
  template <class Cell>
  static __device__ __forceinline__ void StoreCells(unsigned char* out, std::ptrdiff_t step,
                                                    const unsigned (&bits)[kQuad], int count) {
    constexpr int kSize = sizeof(Cell), kInWord = 4 / kSize;
    struct alignas(kQuad * kSize) Four {
      unsigned word[kQuad / kInWord];
    };
    if (count == kQuad && step == kSize &&
        reinterpret_cast<std::uintptr_t>(out) % sizeof(Four) == 0) {
      Four four = {};
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        four.word[i / kInWord] |= bits[i] << (8 * kSize * (i % kInWord));
      }
      *reinterpret_cast<Four*>(out) = four;
      return;
    }
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      if (i < count) *reinterpret_cast<Cell*>(out + i * step) = static_cast<Cell>(bits[i]);
    }
  }

  // Up to four values as the target's elements: bytes, floats, or ten bits in the upper ones of
  // sixteen.
  static __device__ __noinline__ void StoreValues(const Job& job, int plane, unsigned char* out,
                                                  std::ptrdiff_t step, int4 value, int count) {
    const int values[kQuad] = {value.x, value.y, value.z, value.w};
    unsigned bits[kQuad];
    const auto each = [&](const auto& bits_of) {
#pragma unroll
      for (int i = 0; i < kQuad; ++i) bits[i] = bits_of(values[i]);
    };
    switch (job.target.element) {
      case Element::kFloat32:
        each([&](int v) {
          const float scaled = __fmul_rn(static_cast<float>(v), job.target.scale[plane]);
          return __float_as_uint(__fadd_rn(scaled, job.target.offset[plane]));
        });
        return StoreCells<unsigned>(out, step, bits, count);
      case Element::kUint10:
        each([](int v) { return static_cast<unsigned>((v + 8) >> 4 << 6); });
        return StoreCells<unsigned short>(out, step, bits, count);
      default:
        each([](int v) { return static_cast<unsigned>((v + 32) >> 6); });
        return StoreCells<unsigned char>(out, step, bits, count);
    }
  }

  static __device__ __forceinline__ void StoreChannel(const Job& job, const Place& place, int c,
                                                      const int (&value)[kQuad], int count) {
    StoreValues(job, c, CellOf(job, c, place, 1), job.target.plane[c].column_stride,
                make_int4(value[0], value[1], value[2], value[3]), count);
  }

  static __device__ __forceinline__ void StoreAlpha(const Job& job, const Place& place, int count,
                                                    float& finite) {
    int alpha[kQuad];
    const SourcePlane& plane = job.source.channel[3];
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      alpha[i] = kWhiteQ6;
      if (plane.data == nullptr) continue;
      const int column = min(place.x + i, job.source.width - 1);
      const unsigned char* const p = RowOf(job, 3, place) + column * plane.column_stride;
      alpha[i] = LevelOfBits(job, 3, BitsAt(job.source.element, p), finite);
    }
    StoreChannel(job, place, 3, alpha, count);
  }

  static __device__ __forceinline__ void StoreLuma(const Job& job, const Place& place,
                                                   const int (&marked)[3][kQuad], int count) {
    const YuvWeights& weights = job.target.yuv;
    int luma[kQuad];
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      const int grey = GreyOf(marked[0][i], marked[1][i], marked[2][i], weights.red, weights.blue);
      luma[i] = MulRound15(grey, weights.luma) + weights.luma_offset_q6;
    }
    StoreChannel(job, place, 0, luma, count);
  }

  // Those of this row and the one above it: two pairs for four columns.
  __device__ __forceinline__ void StoreDifferences(const Job& job, const Place& place,
                                                   const int (&marked)[3][kQuad], int count) const {
    const YuvWeights& weights = job.target.yuv;
    int pairs[kQuad];  // Cb, Cr, Cb, Cr
#pragma unroll
    for (int at = 0; at < kQuad; at += 2) {
      int mean[3];
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        // The column beside the last of an odd number repeats it.
        const bool beside = at + 1 < count;
        const int below = marked[c][at] + (beside ? marked[c][at + 1] : marked[c][at]);
        const unsigned two = above_[c][at / 2];
        const int upper = static_cast<int>((two & 0xffffU) + (beside ? two >> 16 : two & 0xffffU));
        mean[c] = (below + (place.y % 2 != 0 ? upper : below) + 2) >> 2;
      }
      const int grey = GreyOf(mean[0], mean[1], mean[2], weights.red, weights.blue);
      pairs[at] = min(MulRound15(mean[2] - grey, weights.cb) + kMiddleQ6, kWhiteQ6);
      pairs[at + 1] = min(MulRound15(mean[0] - grey, weights.cr) + kMiddleQ6, kWhiteQ6);
    }
    const TargetPlane &u = job.target.plane[1], &v = job.target.plane[2];
    const int size = job.target.element == Element::kUint10 ? 2 : 1;
    unsigned char *const cb = CellOf(job, 1, place, 2), *const cr = CellOf(job, 2, place, 2);
    const int both = count > 2 ? 2 : 1;
    if (cr == cb + size && u.column_stride == 2 * size && v.column_stride == 2 * size) {
      StoreValues(job, 1, cb, size, make_int4(pairs[0], pairs[1], pairs[2], pairs[3]), 2 * both);
    } else {
      StoreValues(job, 1, cb, u.column_stride, make_int4(pairs[0], pairs[2], 0, 0), both);
      StoreValues(job, 2, cr, v.column_stride, make_int4(pairs[1], pairs[3], 0, 0), both);
    }
  }

  unsigned above_[3][kQuad / 2] = {};  // the marked row above, two values in a word
};

}  // namespace birthmark::cuda

#endif  // BIRTHMARK_CUDA_WRITERS_CUH_
