// Pictures of any format, stride and size, chosen by the fuzzer, in memory of exactly their extent:
// the address sanitizer sees every byte beyond.
#ifndef BIRTHMARK_TESTS_FUZZ_PICTURE_H_
#define BIRTHMARK_TESTS_FUZZ_PICTURE_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>

#include "birthmark/birthmark.h"
#include "contract/mark_file.h"
#include "embed/dispatch.h"
#include "input.h"

namespace fuzz {

inline std::ptrdiff_t SizeOf(std::int32_t element) {
  return element == BIRTHMARK_FLOAT32                              ? 4
         : element == BIRTHMARK_UINT8 || element == BIRTHMARK_INT8 ? 1
                                                                   : 2;
}

// No mark, one of all orbits and tints, one whose echo is short, and one as loud as the contract
// allows.
inline constexpr int kMarks = 4;
inline Bytes MarkBytes(int which) {
  if (which == 0) return {};
  birthmark::MarkFile mark;
  Noise noise(static_cast<std::uint32_t>(which));
  const int most = which == 3 ? 60000 / birthmark::kOrbits : 600;
  for (int o = 0; o < (which == 2 ? 6 : birthmark::kOrbits); ++o) {
    for (std::int16_t& gain : mark.gains[o]) {
      const int size = which == 3 ? most : static_cast<int>(noise() % 600);
      gain = static_cast<std::int16_t>((noise() & 1) != 0 ? size : -size);
    }
  }
  for (int row = birthmark::kOrbits; which != 2 && row < birthmark::kGainRows; ++row) {
    for (std::int16_t& gain : mark.gains[row]) {
      const int size = which == 3 ? birthmark::kTintGainMax : static_cast<int>(noise() % 600);
      gain = static_cast<std::int16_t>((noise() & 1) != 0 ? size : -size);
    }
  }
  const auto bytes = birthmark::WriteMarkFile(mark);
  return Bytes(bytes.begin(), bytes.end());
}

struct Destroyer {
  void operator()(birthmark_context* context) const { birthmark_destroy(context); }
  void operator()(birthmark_stream* stream) const { birthmark_stream_destroy(stream); }
};
using Context = std::unique_ptr<birthmark_context, Destroyer>;

inline Context NewContext(int mark, birthmark::Isa isa) {
  const Bytes bytes = MarkBytes(mark);
  birthmark_context* context = nullptr;
  CHECK(birthmark_create(bytes.empty() ? nullptr : bytes.data(), bytes.size(),
                         birthmark::IsaName(isa).data(), &context) == BIRTHMARK_OK);
  return Context(context);
}

// Twice as wide as an address, so that no sum of what a caller gives wraps.
__extension__ typedef __int128 Int128;

// Offsets of a plane's cells from its first one, as wide as they may become.
struct Extent {
  Int128 least = 0, end = 0;

  // No address has so much room before or behind it.
  bool leaves_memory() const { return least < -(Int128{1} << 48) || end >= Int128{1} << 64; }
  Int128 size() const { return end - least; }

  void Add(std::ptrdiff_t first, std::ptrdiff_t row_stride, std::ptrdiff_t column_stride, int width,
           int height, std::ptrdiff_t bytes) {
    for (Int128 row : {Int128{0}, Int128{row_stride} * (height - 1)}) {
      for (Int128 column : {Int128{0}, Int128{column_stride} * (width - 1)}) {
        least = std::min(least, first + row + column);
        end = std::max(end, first + row + column + bytes);
      }
    }
  }
};

// How the planes of a picture lie: offsets of the first cells, and strides.
struct Layout {
  std::ptrdiff_t first[4] = {};
  std::ptrdiff_t row[4] = {}, column[4] = {};
};

inline void TurnRows(Layout& layout, int p, int height) {
  layout.first[p] += layout.row[p] * (height - 1);
  layout.row[p] = -layout.row[p];
}
inline void TurnColumns(Layout& layout, int p, int width) {
  layout.first[p] += layout.column[p] * (width - 1);
  layout.column[p] = -layout.column[p];
}

// Ways to lay out planes of this size. Mostly sensible, at times not.
inline Layout ChooseLayout(Input& input, int planes, int width, int height, std::ptrdiff_t bytes) {
  Layout layout;
  const bool interleaved = input.OneIn(2);
  const std::ptrdiff_t pad = input.OneIn(3) ? input.Byte() : 0;
  const std::ptrdiff_t cell = bytes + (input.OneIn(5) ? input.Byte() % 8 : 0);
  const std::ptrdiff_t column = interleaved ? cell * planes : cell;
  const bool by_columns = input.OneIn(7);
  const std::ptrdiff_t line = (by_columns ? height : width) * column + pad;
  const bool turned_rows = input.OneIn(4), turned_columns = input.OneIn(4);
  const bool backwards = input.OneIn(4);
  for (int p = 0; p < planes; ++p) {
    const int place = backwards && p < 3 && planes >= 3 ? 2 - p : p;
    layout.row[p] = by_columns ? column : line;
    layout.column[p] = by_columns ? line : column;
    layout.first[p] = place * (interleaved ? cell : line * (by_columns ? width : height));
    if (turned_rows) TurnRows(layout, p, height);
    if (turned_columns) TurnColumns(layout, p, width);
  }
  if (input.OneIn(8)) {  // something about one plane is off
    const std::size_t p = static_cast<std::size_t>(input.Byte() % planes);
    const std::ptrdiff_t odd[] = {0, 1, -1, 2, 3, PTRDIFF_MAX, PTRDIFF_MIN, PTRDIFF_MAX / 2, 4096};
    switch (input.Byte() % 3) {
      case 0:
        layout.row[p] = input.Of(odd);
        break;
      case 1:
        layout.column[p] = input.Of(odd);
        break;
      default:
        layout.first[p] += input.Byte() - 128;
    }
  }
  return layout;
}

// Of the elements' bits: any, those of numbers around [0, 1], or equal ones; at times one not
// finite.
inline void Fill(Bytes& bytes, Input& input, std::int32_t element) {
  const int kind = input.Byte() % 4;
  Noise noise(input.Word());
  const std::uint8_t level = static_cast<std::uint8_t>(noise());
  const std::size_t size = static_cast<std::size_t>(SizeOf(element));
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = kind == 1 ? level : static_cast<std::uint8_t>(noise());
    if (size == 1 || kind == 0 || i % size != size - 1) continue;
    // Below the exponent of what is not finite.
    bytes[i] &=
        element == BIRTHMARK_FLOAT16 ? (kind == 3 ? 0x3b : 0xbb) : (kind == 3 ? 0x3f : 0xbf);
  }
  if (size > 1 && input.OneIn(6)) {  // one infinity
    const std::size_t at = noise() % (bytes.size() / size) * size;
    bytes[at + size - 1] = element == BIRTHMARK_FLOAT16 ? 0x7c : 0x7f;
    bytes[at + size - 2] = element == BIRTHMARK_FLOAT16 ? 0 : 0x80;
  }
}

inline float ChooseNumber(Input& input, float usual) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kOdd[] = {0.0f,  -1.0f,  0.5f,  1e-40f,    1e38f,      -1e38f,
                            3e-5f, 255.0f, -0.0f, kInfinity, -kInfinity, NAN};
  return input.OneIn(12) ? input.Of(kOdd) : usual;
}

// Sides of a picture. The smaller of two draws: a picture costs what its halo costs, so many small
// ones find more than few large ones. Now and then one that is wider than a tile of the pass.
constexpr int kUsualSide = 48;
struct Sides {
  int width, height;
};
inline int ChooseSide(Input& input) {
  const std::uint32_t draws = input.Word();
  return 1 + static_cast<int>(std::min(draws % kUsualSide, (draws >> 16) % kUsualSide));
}
inline Sides ChooseSides(Input& input, int most_rows_if_wide) {
  if (input.OneIn(64)) {
    const int width = input.Between(900, 2000);
    return {width, input.Between(1, most_rows_if_wide)};
  }
  const int width = ChooseSide(input);
  return {width, ChooseSide(input)};
}

constexpr std::size_t kMostBytes = std::size_t{1} << 18;
// Of what would leave memory nothing is touched: a little room for its first cells.
constexpr Int128 kRefusedBytes = 64;

// A picture that is read. Not usable when its memory would be too much to have.
class SourcePicture {
 public:
  SourcePicture(Input& input, int width, int height) {
    constexpr std::int32_t kElements[] = {BIRTHMARK_UINT8,   BIRTHMARK_FLOAT32, BIRTHMARK_INT8,
                                          BIRTHMARK_FLOAT16, BIRTHMARK_UINT8,   BIRTHMARK_BFLOAT16,
                                          BIRTHMARK_FLOAT32};
    birthmark_source_init(&source, sizeof(source));
    source.width = width;
    source.height = height;
    source.element = input.Of(kElements);
    const int channels = input.Of({3, 3, 4, 1});
    const std::ptrdiff_t bytes = SizeOf(source.element);
    Layout layout = ChooseLayout(input, channels, width, height, bytes);
    if (input.OneIn(4)) {
      source.quantum = ChooseNumber(input, 0.0125f);
      source.zero_point = input.Between(-256, 256);
    }
    if (input.OneIn(3)) {
      for (int c = 0; c < 4; ++c) {
        source.scale[c] = ChooseNumber(input, 0.5f);
        source.offset[c] = ChooseNumber(input, 0.5f);
      }
    }
    Extent extent;
    for (int c = 0; c < channels; ++c) {
      extent.Add(layout.first[c], layout.row[c], layout.column[c], width, height, bytes);
    }
    leaves_memory_ = extent.leaves_memory();
    usable_ = leaves_memory_ || extent.size() <= Int128{kMostBytes};
    if (!usable_) return;
    if (leaves_memory_) extent = {0, kRefusedBytes};
    memory_.resize(static_cast<std::size_t>(extent.size()));
    Fill(memory_, input, source.element);
    std::uint8_t* const zero = memory_.data() - static_cast<std::ptrdiff_t>(extent.least);
    for (int c = 0; c < (channels == 4 ? 4 : 3); ++c) {
      const int p = channels == 1 ? 0 : c;
      source.channel[c] = {zero + (leaves_memory_ ? 0 : layout.first[p]), layout.row[p],
                           layout.column[p]};
    }
  }
  SourcePicture(const SourcePicture&) = delete;
  SourcePicture& operator=(const SourcePicture&) = delete;

  birthmark_source source;
  bool usable() const { return usable_; }
  bool leaves_memory() const { return leaves_memory_; }

 private:
  bool usable_ = false, leaves_memory_ = false;
  Bytes memory_;
};

// What a picture is published as: all of a birthmark_target but the planes.
inline birthmark_target ChooseTarget(Input& input, int& planes) {
  birthmark_target target;
  birthmark_target_init(&target, sizeof(target));
  target.colours = input.Of({BIRTHMARK_RGB, BIRTHMARK_YUV, BIRTHMARK_RGB, BIRTHMARK_GREY});
  target.matrix = input.Byte() % 2;
  target.full_range = input.Byte() % 2;
  if (input.OneIn(3)) {
    target.element = target.colours == BIRTHMARK_YUV ? BIRTHMARK_UINT10 : BIRTHMARK_FLOAT32;
    if (target.colours == BIRTHMARK_YUV) target.full_range = 0;
  }
  if (input.OneIn(16)) target.element = input.Byte() % 6;
  if (input.OneIn(4)) {
    for (int c = 0; c < 4; ++c) {
      target.scale[c] = ChooseNumber(input, 0.01f);
      target.offset[c] = ChooseNumber(input, -1.0f);
    }
  }
  planes = target.colours == BIRTHMARK_GREY  ? 1
           : target.colours == BIRTHMARK_YUV ? 3
           : input.OneIn(3)                  ? 4
                                             : 3;
  return target;
}

inline int PlaneSide(const birthmark_target& target, int plane, int side) {
  return target.colours == BIRTHMARK_YUV && plane > 0 ? (side + 1) / 2 : side;
}

inline std::uint8_t* CellAt(const birthmark_target& target, int plane, int row, int column) {
  return static_cast<std::uint8_t*>(target.plane[plane].data) +
         target.plane[plane].row_stride * row + target.plane[plane].column_stride * column;
}

// Memory for a target's planes one after another, packed.
class PackedTarget {
 public:
  PackedTarget(const birthmark_target& like, int planes, int width, int height) : target(like) {
    const std::ptrdiff_t bytes = SizeOf(like.element);
    std::size_t size = 0;
    for (int p = 0; p < planes; ++p) {
      size +=
          static_cast<std::size_t>(bytes * PlaneSide(like, p, width) * PlaneSide(like, p, height));
    }
    memory.resize(size, 0x5A);
    std::uint8_t* at = memory.data();
    for (int p = 0; p < planes; ++p) {
      const std::ptrdiff_t row = bytes * PlaneSide(like, p, width);
      target.plane[p] = {at, row, bytes};
      at += row * PlaneSide(like, p, height);
    }
  }
  PackedTarget(const PackedTarget&) = delete;
  PackedTarget& operator=(const PackedTarget&) = delete;

  birthmark_target target;
  Bytes memory;
};

}  // namespace fuzz

#endif  // BIRTHMARK_TESTS_FUZZ_PICTURE_H_
