// What the CUDA kernel is asked to do, and how the work is cut into blocks. Plain C++, so that the
// emulator in tests/cuda_emulator can include it as well.
#ifndef BIRTHMARK_CUDA_JOB_H_
#define BIRTHMARK_CUDA_JOB_H_

#include <cstddef>
#include <cstdint>

#include "contract/arithmetic.h"

namespace birthmark::cuda {

// A thread works on four neighbouring columns, a block on a strip of columns from top to bottom of
// a stripe of rows. The halo on both sides of a strip is rounded up to whole threads, so that a
// thread's columns begin at a multiple of four.
inline constexpr int kThreads = 96;
inline constexpr int kQuad = 4;
inline constexpr int kStripHalo = (kHalo + kQuad - 1) / kQuad * kQuad;
inline constexpr int kStripColumns = kThreads * kQuad - 2 * kStripHalo;

// What comes in; what goes out is RGB8, interleaved.
enum class Format {
  kPlanarFloat,  // float32 planes: red, green, blue in [0, 1]
  kPlanarHalf,   // float16 planes, the same
  kRgb8,         // uint8, interleaved
};

// The gains of one tone as the kernel reads them: the mark's rows, then minus the sum of the
// orbits', then filled up to whole 16-byte words.
inline constexpr int kGainColumns = (kGainRows + 1 + 3) / 4 * 4;

// Passed to the kernel by value. All strides are in bytes and may be negative.
struct Job {
  const unsigned char* planes[3];  // interleaved pixels: only the first
  std::ptrdiff_t row_stride, picture_stride;
  unsigned char* out;
  std::ptrdiff_t out_row_stride, out_picture_stride;
  int width, height;  // at least 1
  // CutIntoBlocks fills these.
  int strips, stripes, stripe_rows;
  bool whole_reads, whole_writes;  // four pixels are aligned, so they can go at once
  int* not_finite;                 // set to 1 when a value is NaN or infinite
  alignas(16) std::int32_t gains[kTones][kGainColumns];
};

// The table in a Job for a mark's gains.
inline void SetGains(const std::int16_t (&gains)[kGainRows][kTones], Job& job) {
  for (int tone = 0; tone < kTones; ++tone) {
    std::int32_t (&row)[kGainColumns] = job.gains[tone];
    for (int column = 0; column < kGainColumns; ++column) row[column] = 0;
    for (int i = 0; i < kGainRows; ++i) {
      row[i] = gains[i][tone];
      if (i < kOrbits) row[kGainRows] -= gains[i][tone];
    }
  }
}

// Bytes that a source reads at once.
constexpr int ReadBytes(Format format) {
  return format == Format::kPlanarFloat ? 16 : format == Format::kPlanarHalf ? 8 : 4;
}

// Cuts `pictures` pictures of the job's size into blocks and returns their number. `slots` blocks
// run at a time; whole rounds of them are tried, and the cheapest is taken. A stripe costs its rows
// and, since rows of the halo stop half way, about half of the halo. The bytes do not depend on it.
inline std::int64_t CutIntoBlocks(Format format, std::int64_t pictures, std::int64_t slots,
                                  Job& job) {
  const auto is_multiple = [](auto value, int of) {
    return reinterpret_cast<std::uintptr_t>(value) % static_cast<std::uintptr_t>(of) == 0;
  };
  const int read = ReadBytes(format);
  const auto strides_fit = [](std::ptrdiff_t row, std::ptrdiff_t picture, int bytes) {
    return row % bytes == 0 && picture % bytes == 0;
  };
  job.whole_reads = strides_fit(job.row_stride, job.picture_stride, read);
  for (const unsigned char* plane : job.planes) {
    job.whole_reads = job.whole_reads && is_multiple(plane, read);
  }
  job.whole_writes =
      strides_fit(job.out_row_stride, job.out_picture_stride, 4) && is_multiple(job.out, 4);
  const auto up = [](std::int64_t a, std::int64_t b) { return (a + b - 1) / b; };
  job.strips = static_cast<int>(up(job.width, kStripColumns));
  const std::int64_t columns = pictures * job.strips;
  std::int64_t least = INT64_MAX;
  for (std::int64_t rounds = 1; rounds <= 8; ++rounds) {
    const std::int64_t most = up(job.height, kQuad);
    const std::int64_t fit = rounds * slots / columns;
    const std::int64_t stripes = fit < 1 ? 1 : fit < most ? fit : most;
    const std::int64_t rows = up(job.height, stripes);
    const std::int64_t cost = up(columns * stripes, slots) * (rows + kHalo);
    if (cost >= least) continue;
    least = cost;
    job.stripe_rows = static_cast<int>(rows);
  }
  job.stripes = static_cast<int>(up(job.height, job.stripe_rows));
  return pictures * job.strips * job.stripes;
}

}  // namespace birthmark::cuda

#endif  // BIRTHMARK_CUDA_JOB_H_
