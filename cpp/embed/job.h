// What a kernel is asked to do: plain views of the caller's memory, and the scratch it may use.
#ifndef BIRTHMARK_EMBED_JOB_H_
#define BIRTHMARK_EMBED_JOB_H_

#include <cstddef>
#include <cstdint>

#include "contract/arithmetic.h"

namespace birthmark {

// The folded mark: one gain for each orbit and tone (contract, step 10).
using Gains = std::int16_t[kOrbits][kTones];

// A picture to be marked or measured. Exactly one of `planes` and `pixels` is set.
struct Source {
  const float* planes[3] = {};           // red, green, blue in [0, 1]; each row contiguous
  const std::uint8_t* pixels = nullptr;  // RGB, interleaved
  std::ptrdiff_t row_stride = 0;         // in elements, from one row to the next
  int width = 0, height = 0;             // at least 1
};

// Rows [first, last) of the picture are published; the rows around them are only read.
struct EmbedJob {
  Source source;
  std::uint8_t* out = nullptr;    // RGB, interleaved
  std::ptrdiff_t out_stride = 0;  // bytes from one row to the next
  int first_row = 0, last_row = 0;
  const Gains* gains = nullptr;  // null: the mark is switched off
};

struct StatisticsJob {
  Source source;
  int first_row = 0, last_row = 0;
  std::int64_t* sums = nullptr;  // [kTones][kStatistics], added to
};

// The fields behind the carriers, for calibration and for the informed test.
struct FieldsJob {
  Source source;
  std::int16_t* texture = nullptr;  // [height][width]: w
  std::uint8_t* tone = nullptr;     // [height][width]
  std::int16_t* orbits = nullptr;   // [kOrbits][height][width]: t_o
};

// Columns that are worked on at a time; wider pictures are cut into such tiles.
inline constexpr int kTileWidth = 960;
// Free columns on both sides of a tile: the halo, and a whole vector that may run over.
inline constexpr int kMargin = 64;
static_assert(kHalo + 32 <= kMargin);
// An odd number of cache lines, so that the rows of a ring do not fall onto each other in the
// cache.
inline constexpr int kRowStride = kTileWidth + 2 * kMargin + 32;

using Row = std::int16_t[kRowStride];

// Rows wait for the rows below them in rings, which are as deep as the way from the stage that
// writes to the stage that reads last (pipeline.inc).
inline constexpr int kLumaRows = 2 * kSmoothReach + 1;
inline constexpr int kBoxRows = kActivityReach + 1;  // K15 is two boxes of eight
inline constexpr int kEchoRows = 2 * kEchoReach + 1;
inline constexpr int kToneRows = kActivityReach + kEchoReach + 1;
inline constexpr int kValueRows = kHalo + 1;

struct alignas(64) Workspace {
  Row value[kValueRows][3];
  // Each row is kept twice, one ring apart: so all rows of the ring lie one below the other,
  // wherever it begins, and a stage that reads them all needs one pointer.
  Row luma[2 * kLumaRows];
  Row normalised[2 * kEchoRows];
  Row column;
  Row texture[kBoxRows];
  Row tone[kToneRows];
  Row roughness[kBoxRows];
  Row rough_sum[kBoxRows];
  Row rough_sum_of_sums;
  Row pair[kRadius + 1];
};

// One kernel: the same functions compiled for one instruction set.
struct Kernel {
  // False when a value was not finite; what was written to `out` until then is unspecified.
  bool (*embed)(const EmbedJob& job, Workspace& work);
  bool (*statistics)(const StatisticsJob& job, Workspace& work);
  bool (*fields)(const FieldsJob& job, Workspace& work);
};

}  // namespace birthmark

#endif  // BIRTHMARK_EMBED_JOB_H_
