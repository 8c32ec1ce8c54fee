// How four pixels come in and go out. A reader has
//   Reads        whether it reads such a source
//   kPlanes      of so many planes it reads four pixels at once,
//   kAlign       where addresses and strides are multiples of this
//   Raw          what was read of four pixels, still unconverted, so that it can be read ahead
//   Fetch        reads four pixels of a row, at once if they are whole; columns outside the picture
//                are its nearest edge
//   Convert      contract step 1
// and a writer has
//   Writes       whether it writes such a target
//   kPlanes, kAlign as above
//   Store        publishes the four marked pixels of a row. Rows come one below the other
// As on the processor, the commonest formats have one of their own, and all others share one.
// What is done to pixels one by one is rare and out of line, or its instructions would be in
// everybody's way.
#ifndef BIRTHMARK_CUDA_FORMATS_CUH_
#define BIRTHMARK_CUDA_FORMATS_CUH_

#include <cuda_fp16.h>

#include "cuda/job.h"

namespace birthmark::cuda {

constexpr float kWhite = static_cast<float>(kWhiteQ6);
constexpr int kGreyRed = kYuvWeights[0][0].red, kGreyBlue = kYuvWeights[0][0].blue;

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

// --- Readers -------------------------------------------------------------------------------------

// Planes of floats of so many bytes.
template <int kBytes>
struct PlanarReader {
  static constexpr int kPlanes = 3, kAlign = kQuad * kBytes;
  struct alignas(kAlign) Four {
    unsigned word[kAlign / 4];
  };
  struct Raw {
    Four plane[3];
  };

  static bool Reads(const Source& source) {
    for (int c = 0; c < 3; ++c) {
      if (source.channel[c].column_stride != kBytes) return false;
    }
    return kBytes == 4
               ? source.element == Element::kFloat32
               : source.element == Element::kFloat16 || source.element == Element::kBfloat16;
  }
  static __device__ __forceinline__ Raw Fetch(const Job& job, const Place& place, bool whole) {
    if (!whole) return FetchSingly(job, place);
    Raw raw;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      raw.plane[c] = reinterpret_cast<const Four*>(RowOf(job, c, place))[place.x / kQuad];
    }
    return raw;
  }
  static __device__ __forceinline__ Pixels Convert(const Job& job, const Raw& raw, float& finite) {
    Pixels pixels;
    const auto each = [&](const auto& level) {
#pragma unroll
      for (int c = 0; c < 3; ++c) {
#pragma unroll
        for (int i = 0; i < kQuad; ++i) {
          const Four& four = raw.plane[c];
          pixels.value[c][i] =
              level(c, kBytes == 4 ? four.word[i] : four.word[i / 2] >> (16 * (i % 2)) & 0xffffU);
        }
      }
    };
    const Element element = kBytes == 4 ? Element::kFloat32 : job.source.element;
    if (job.is_unit && element == Element::kBfloat16) {
      each([&](int, unsigned bits) {
        return LevelOf<true>(Widen(Element::kBfloat16, bits), finite);
      });
    } else if (job.is_unit) {
      constexpr Element kOther = kBytes == 4 ? Element::kFloat32 : Element::kFloat16;
      each([&](int, unsigned bits) { return LevelOf<kBytes == 2>(Widen(kOther, bits), finite); });
    } else {
      each([&](int c, unsigned bits) {
        return LevelOf<false>(InUnitRange(job, c, Widen(element, bits)), finite);
      });
    }
    return pixels;
  }

 private:
  static __device__ __noinline__ Raw FetchSingly(const Job& job, Place place) {
    Raw raw = {};
    for (int c = 0; c < 3; ++c) {
      const unsigned char* const row = RowOf(job, c, place);
      for (int i = 0; i < kQuad; ++i) {
        const int column = Clamp(place.x + i, 0, job.source.width - 1);
        raw.plane[c].word[i * kBytes / 4] |= BitsAt<kBytes>(row + std::ptrdiff_t{kBytes} * column)
                                             << (8 * (i * kBytes % 4));
      }
    }
    return raw;
  }
};

// Three bytes a pixel: red, green, blue.
struct PackedReader {
  static constexpr int kPlanes = 1, kAlign = 4;
  struct Raw {
    unsigned word[3];
  };

  static bool Reads(const Source& source) {
    for (int c = 0; c < 3; ++c) {
      const SourcePlane& plane = source.channel[c];
      if (plane.column_stride != 3 || plane.row_stride != source.channel[0].row_stride ||
          plane.data != source.channel[0].data + c || source.scale[c] != 1 ||
          source.offset[c] != 0) {
        return false;
      }
    }
    return source.element == Element::kUint8 && source.quantum == kByteQuantum &&
           source.zero_point == 0;
  }
  static __device__ __forceinline__ Raw Fetch(const Job& job, const Place& place, bool whole) {
    if (!whole) return FetchSingly(job, place);
    const unsigned* const words = reinterpret_cast<const unsigned*>(RowOf(job, 0, place));
    Raw raw;
#pragma unroll
    for (int i = 0; i < 3; ++i) raw.word[i] = words[std::ptrdiff_t{3} * (place.x / kQuad) + i];
    return raw;
  }
  static __device__ __forceinline__ Pixels Convert(const Job&, const Raw& raw, float&) {
    Pixels pixels;
#pragma unroll
    for (int at = 0; at < 3 * kQuad; ++at) {
      pixels.value[at % 3][at / 3] = static_cast<int>(raw.word[at / 4] >> (8 * (at % 4)) & 0xffU)
                                     << 6;
    }
    return pixels;
  }

 private:
  static __device__ __noinline__ Raw FetchSingly(const Job& job, Place place) {
    const unsigned char* const p = RowOf(job, 0, place);
    Raw raw = {};
    for (int at = 0; at < 3 * kQuad; ++at) {
      const int column = Clamp(place.x + at / 3, 0, job.source.width - 1);
      raw.word[at / 4] |= unsigned{p[std::ptrdiff_t{3} * column + at % 3]} << (8 * (at % 4));
    }
    return raw;
  }
};

// Everything: any element, order, range and strides; grey has the same plane three times.
struct AnyReader {
  static constexpr int kPlanes = 0, kAlign = 1;
  struct Raw {
    unsigned bits[3][kQuad];
  };

  static bool Reads(const Source&) { return true; }
  static __device__ __noinline__ Raw Fetch(const Job& job, Place place, bool) {
    Raw raw;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      const unsigned char* const row = RowOf(job, c, place);
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        const int column = Clamp(place.x + i, 0, job.source.width - 1);
        raw.bits[c][i] =
            BitsAt(job.source.element, row + column * job.source.channel[c].column_stride);
      }
    }
    return raw;
  }
  static __device__ __forceinline__ Pixels Convert(const Job& job, const Raw& raw, float& finite) {
    Pixels pixels;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        pixels.value[c][i] = LevelOfBits(job, c, raw.bits[c][i], finite);
      }
    }
    return pixels;
  }
};

// --- Writers -------------------------------------------------------------------------------------

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

// --- Which of them -------------------------------------------------------------------------------

template <class Reader, class Writer>
struct Formats {};

// Calls `run` with the Formats of a job. Bytes have a kernel for the commonest case and share the
// one for everything else: each kernel is 40 kB of the library.
template <class Run>
auto WithFormats(const Job& job, const Run& run) {
  const bool packed = PackedWriter::Writes(job.target);
  const auto planar = [&]<class Reader>(Reader) {
    return packed ? run(Formats<Reader, PackedWriter>()) : run(Formats<Reader, AnyWriter>());
  };
  if (PlanarReader<2>::Reads(job.source)) return planar(PlanarReader<2>());
  if (PlanarReader<4>::Reads(job.source)) return planar(PlanarReader<4>());
  if (packed && PackedReader::Reads(job.source)) return run(Formats<PackedReader, PackedWriter>());
  return run(Formats<AnyReader, AnyWriter>());
}

// What the kernel of those Formats has to know of a job besides.
template <class Reader, class Writer>
void Prepare(Job& job) {
  const auto fits = [](const auto& plane, std::ptrdiff_t picture_stride, int align) {
    return reinterpret_cast<std::uintptr_t>(plane.data) % static_cast<std::uintptr_t>(align) == 0 &&
           plane.row_stride % align == 0 && picture_stride % align == 0;
  };
  job.whole_reads = job.whole_writes = job.is_unit = true;
  for (int c = 0; c < Reader::kPlanes; ++c) {
    job.whole_reads =
        job.whole_reads && fits(job.source.channel[c], job.picture_stride, Reader::kAlign);
  }
  for (int p = 0; p < Writer::kPlanes; ++p) {
    job.whole_writes =
        job.whole_writes && fits(job.target.plane[p], job.out_picture_stride[p], Writer::kAlign);
  }
  for (int c = 0; c < 3; ++c) {
    job.is_unit = job.is_unit && job.source.scale[c] == 1 && job.source.offset[c] == 0;
  }
}

}  // namespace birthmark::cuda

#endif  // BIRTHMARK_CUDA_FORMATS_CUH_
