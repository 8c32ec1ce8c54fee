// How four pixels come in. A reader has
//   Reads        whether it reads such a source
//   kPlanes      of so many planes it reads four pixels at once,
//   kAlign       where addresses and strides are multiples of this
//   Raw          what was read of four pixels, still unconverted, so that it can be read ahead
//   Fetch        reads four pixels of a row, at once if they are whole; columns outside the picture
//                are its nearest edge
//   Convert      contract step 1
#ifndef BIRTHMARK_CUDA_READERS_CUH_
#define BIRTHMARK_CUDA_READERS_CUH_

#include "cuda/pixels.cuh"

namespace birthmark::cuda {

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

}  // namespace birthmark::cuda

#endif  // BIRTHMARK_CUDA_READERS_CUH_
