// What a kernel is asked to do: plain views of the caller's memory, and the scratch it may use.
#ifndef BIRTHMARK_EMBED_JOB_H_
#define BIRTHMARK_EMBED_JOB_H_

#include <cstddef>
#include <cstdint>

#include "contract/arithmetic.h"

namespace birthmark {

// The folded mark (contract, steps 11 and 12).
using Gains = std::int16_t[kGainRows][kTones];

// What one channel value of a picture is stored as.
enum class Element : std::uint8_t {
  kUint8,
  kInt8,
  kUint10,  // in the upper bits of 16, as in P010
  kFloat16,
  kBfloat16,
  kFloat32,
};

// One channel: where its first value is, and how many bytes (any number, either sign) it is from
// there to the value below and to the one beside it.
struct SourcePlane {
  const std::uint8_t* data = nullptr;
  std::ptrdiff_t row_stride = 0, column_stride = 0;
};
struct TargetPlane {
  std::uint8_t* data = nullptr;
  std::ptrdiff_t row_stride = 0, column_stride = 0;
};

inline constexpr int kChannels = 4;  // red, green, blue, alpha

// A row that was loaded before (contract, step 1).
struct ValueRow {
  const std::int16_t* channel[kChannels];
};

// A picture to be marked or measured. A grey one has the same plane three times.
struct Source {
  SourcePlane channel[kChannels];  // alpha may be absent
  Element element = Element::kFloat32;
  float quantum = kByteQuantum;  // of 8-bit elements
  int zero_point = 0;
  float scale[kChannels] = {1, 1, 1, 1};  // of the model's range (contract, step 1)
  float offset[kChannels] = {};
  const ValueRow* loaded = nullptr;  // if set: the rows, and nothing above counts
  int width = 0, height = 0;         // at least 1
};

// Rows [first_row, last_row) and columns likewise are published; what is around them is only read.
struct Window {
  int first_row = 0, last_row = 0;
  int first_column = 0, last_column = 0;
};

enum class Colours : std::uint8_t {
  kRgb,   // red, green, blue, and alpha unless absent
  kGrey,  // one plane
  kYuv,   // luma, and both differences for each two by two pixels
};

// Where a window goes, its first pixel first.
struct Target {
  TargetPlane plane[kChannels];
  Colours colours = Colours::kRgb;
  Element element = Element::kUint8;      // or kFloat32, or for kYuv kUint10
  float scale[kChannels] = {1, 1, 1, 1};  // of float32 (contract, step 14)
  float offset[kChannels] = {};
  YuvWeights yuv = kYuvWeights[0][0];
};

struct EmbedJob {
  Source source;
  Target target;
  Window window;
  const Gains* gains = nullptr;  // null: the mark is switched off
};

struct StatisticsJob {
  Source source;
  int first_row = 0, last_row = 0;
  std::int64_t* sums = nullptr;  // [kParts][kTones][kStatistics], added to
};

// The fields behind the carriers, for calibration and for the informed test.
struct FieldsJob {
  Source source;
  std::int16_t* texture = nullptr;  // [height][width]: w
  std::uint8_t* tone = nullptr;     // [height][width]
  std::int16_t* orbits = nullptr;   // [kOrbits][height][width]: t_o
  std::int16_t* tint = nullptr;     // [kTintFields - 1][height][width]: all but the constant
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

// Rows are loaded in whole blocks of so many values, the last of which may run over.
inline constexpr int kRowSlack = 32;

// Rows wait for the rows below them in rings, which are as deep as the way from the stage that
// writes to the stage that reads last (pipeline.inc).
inline constexpr int kLumaRows = 2 * kSmoothReach + 1;
inline constexpr int kBoxRows = kActivityReach + 1;  // K15 is two boxes of eight
inline constexpr int kEchoRows = 2 * kEchoReach + 1;
inline constexpr int kRoughnessRows = kEchoReach + 1;
inline constexpr int kToneRows = kActivityReach + kEchoReach + 1;
inline constexpr int kValueRows = kHalo + 1;
// From the texture stage back to two rows above the window around the finished row.
inline constexpr int kSmoothRows = kActivityReach + kEchoReach + kLineReach + 3;

struct alignas(64) Workspace {
  Row value[kValueRows][3];
  // Each row is kept twice, one ring apart: so all rows of the ring lie one below the other,
  // wherever it begins, and a stage that reads them all needs one pointer.
  Row luma[2 * kLumaRows];
  Row normalised[2 * kEchoRows];
  Row column;
  Row texture[kBoxRows];
  Row tone[kToneRows];
  Row magnitude[kBoxRows];
  Row magnitude_sum[kBoxRows];
  Row magnitude_sum_of_sums;
  Row roughness[kRoughnessRows];
  Row pair[kRadius + 1];
  Row staged[3];  // a source row of a format that is not loaded straight into registers
  // Of statistics alone: smoothed luma in q6, the sums of its gradients' products down the columns
  // of a window (across, down, both), and which pixels lie on a line.
  Row smooth[kSmoothRows];
  std::int32_t gradient[3][kRowStride];
  Row line;
  Row marked[2][3];  // the newest rows of a target that is not stored straight from registers
};

// One kernel: the same functions compiled for one instruction set.
struct Kernel {
  // False when a value was not finite; what was written to the target until then is unspecified.
  bool (*embed)(const EmbedJob& job, Workspace& work);
  bool (*statistics)(const StatisticsJob& job, Workspace& work);
  bool (*fields)(const FieldsJob& job, Workspace& work);
  // Row `y` into `count` channels of kRowSlack values more than the source is wide.
  bool (*load)(const Source& source, int y, std::int16_t* const* channels, int count);
  // A row of greys with exactly the luma of `row`; kRowSlack as above.
  void (*luma)(const ValueRow& row, int width, std::int16_t* grey);
};

}  // namespace birthmark

#endif  // BIRTHMARK_EMBED_JOB_H_
