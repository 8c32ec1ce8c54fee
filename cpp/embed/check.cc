#include "embed/check.h"

#include <cmath>
#include <cstdint>
#include <limits>

namespace birthmark {
namespace {

// False when the plane leaves the address space.
template <class Plane>
bool ExtentOf(const Plane& plane, int width, int height, std::ptrdiff_t bytes, Extent& extent) {
  extent.begin = extent.end = reinterpret_cast<std::uintptr_t>(plane.data);
  return !__builtin_add_overflow(extent.end, static_cast<std::uintptr_t>(bytes), &extent.end) &&
         Extend(extent, plane.row_stride, height) && Extend(extent, plane.column_stride, width);
}

bool IsFinite(const float (&numbers)[kChannels]) {
  for (float number : numbers) {
    if (!std::isfinite(number)) return false;
  }
  return true;
}

bool SideIsValid(int side) { return side >= 1 && side <= kMostSide; }

// A plane's two directions, the nearer one first.
struct Directions {
  std::ptrdiff_t near, far;
  std::ptrdiff_t near_reach;  // bytes from the first cell of a run of near ones to the last
  bool by_rows;               // whether cells of a row are the near ones
};
Directions DirectionsOf(const TargetPlane& plane, int width, int height) {
  const std::ptrdiff_t row = plane.row_stride < 0 ? -plane.row_stride : plane.row_stride;
  const std::ptrdiff_t column =
      plane.column_stride < 0 ? -plane.column_stride : plane.column_stride;
  // A direction of one cell is as good as one that leads far away.
  const bool by_rows = height == 1 || (width > 1 && column <= row);
  const int count = by_rows ? width : height;
  const std::ptrdiff_t near = by_rows ? column : row;
  const bool one_line = by_rows ? height == 1 : width == 1;
  return {near,
          one_line  ? std::numeric_limits<std::ptrdiff_t>::max()
          : by_rows ? row
                    : column,
          near * (count - 1), by_rows};
}

// Whether no two cells of a plane share a byte.
bool CellsAreApart(const TargetPlane& plane, int width, int height, std::ptrdiff_t bytes) {
  if (width == 1 && height == 1) return true;
  const Directions d = DirectionsOf(plane, width, height);
  return d.near >= bytes && d.far >= d.near_reach + bytes;
}

struct Sides {
  int width, height;
};

// Whether two planes within the same bytes share none, interleaved by pixels or by rows. The first
// is not the smaller one.
bool PlanesAreApart(const TargetPlane& a, Sides of_a, const TargetPlane& b, Sides of_b,
                    std::ptrdiff_t bytes) {
  if (a.row_stride != b.row_stride || a.column_stride != b.column_stride) return false;
  if (of_a.width == 1 && of_a.height == 1) return false;
  const Directions d = DirectionsOf(a, of_a.width, of_a.height);
  const std::ptrdiff_t reach_of_b = d.near * ((d.by_rows ? of_b.width : of_b.height) - 1);
  const bool a_is_first = a.data < b.data;
  const std::ptrdiff_t apart = a_is_first ? b.data - a.data : a.data - b.data;
  // A line of the plane that begins first against the next line of the other, and the other way
  // round. Where lines run backwards the longer one counts for both.
  const bool backwards = a.row_stride < 0 || a.column_stride < 0;
  const std::ptrdiff_t first = a_is_first || backwards ? d.near_reach : reach_of_b;
  const std::ptrdiff_t second = a_is_first && !backwards ? reach_of_b : d.near_reach;
  const auto clear = [&](std::ptrdiff_t shift, std::ptrdiff_t reach) {
    if (shift >= reach + bytes) return true;
    const std::ptrdiff_t in_cell = shift % d.near;
    return in_cell >= bytes && in_cell <= d.near - bytes;
  };
  return clear(apart % d.far, first) && clear(d.far - apart % d.far, second);
}

struct Planes {
  int count;
  int width, height;  // of all but the first
};
Planes PlanesOf(const Target& target, int width, int height) {
  switch (target.colours) {
    case Colours::kGrey:
      return {1, width, height};
    case Colours::kYuv:
      return {3, (width + 1) / 2, (height + 1) / 2};
    case Colours::kRgb:
      break;
  }
  return {target.plane[3].data != nullptr ? 4 : 3, width, height};
}

bool ElementFits(const Target& target) {
  if (target.element == Element::kUint8) return true;
  return target.colours == Colours::kYuv
             ? target.element == Element::kUint10 && target.yuv.luma_offset_q6 != 0
             : target.element == Element::kFloat32;
}

}  // namespace

bool Extend(Extent& extent, std::ptrdiff_t stride, std::ptrdiff_t count) {
  constexpr std::ptrdiff_t kLeast = std::numeric_limits<std::ptrdiff_t>::min();
  std::ptrdiff_t reach = 0;
  if (stride == kLeast || __builtin_mul_overflow(stride, count - 1, &reach) || reach == kLeast) {
    return false;
  }
  if (reach >= 0) {
    return !__builtin_add_overflow(extent.end, static_cast<std::uintptr_t>(reach), &extent.end);
  }
  return !__builtin_sub_overflow(extent.begin, static_cast<std::uintptr_t>(-reach), &extent.begin);
}

std::ptrdiff_t SizeOf(Element element) {
  switch (element) {
    case Element::kUint8:
    case Element::kInt8:
      return 1;
    case Element::kUint10:
    case Element::kFloat16:
    case Element::kBfloat16:
      return 2;
    case Element::kFloat32:
      return 4;
  }
  return 0;
}

const char* Describe(Status status) {
  switch (status) {
    case Status::kOk:
      return "ok";
    case Status::kNotFinite:
      return "the picture holds a value that is not finite (NaN or Inf)";
    case Status::kNoMemory:
      return "there is not enough memory";
    case Status::kNoPointer:
      return "a plane that is needed is missing";
    case Status::kSize:
      return "a side must have 1 to 1048576 pixels";
    case Status::kReach:
      return "strides and sizes reach beyond the address space";
    case Status::kWindow:
      return "the window is empty or not inside the picture";
    case Status::kOddWindow:
      return "with halved colours a window begins at even rows and columns, and ends at even ones "
             "or at the picture's end";
    case Status::kElement:
      return "these elements do not go with that kind of picture";
    case Status::kRange:
      return "scales, offsets and quantum must be finite, and the quantum positive";
    case Status::kOverlap:
      return "the output shares memory with the input";
    case Status::kSelfOverlap:
      return "values of the output share memory with each other";
    case Status::kStreamFull:
      return "the stream takes no more rows before some are pulled";
    case Status::kStreamEnded:
      return "the stream has ended";
  }
  return "unknown status";
}

Status CheckSource(const Source& source) {
  if (!SideIsValid(source.width) || !SideIsValid(source.height)) return Status::kSize;
  if (source.loaded != nullptr) return Status::kOk;
  if (source.element == Element::kUint10 || SizeOf(source.element) == 0) return Status::kElement;
  for (int c = 0; c < kChannels; ++c) {
    if (source.channel[c].data == nullptr) {
      if (c < 3) return Status::kNoPointer;
      continue;
    }
    Extent extent;
    if (!ExtentOf(source.channel[c], source.width, source.height, SizeOf(source.element), extent)) {
      return Status::kReach;
    }
  }
  if (!IsFinite(source.scale) || !IsFinite(source.offset) || !std::isfinite(source.quantum) ||
      source.quantum <= 0 || source.zero_point < -255 || source.zero_point > 255) {
    return Status::kRange;
  }
  return Status::kOk;
}

Status CheckJob(const EmbedJob& job) {
  const Source& source = job.source;
  if (const Status status = CheckSource(source); status != Status::kOk) return status;
  const Window& window = job.window;
  if (window.first_row < 0 || window.first_row >= window.last_row ||
      window.last_row > source.height || window.first_column < 0 ||
      window.first_column >= window.last_column || window.last_column > source.width) {
    return Status::kWindow;
  }
  const Target& target = job.target;
  if (!ElementFits(target)) return Status::kElement;
  if (!IsFinite(target.scale) || !IsFinite(target.offset)) return Status::kRange;
  if (target.colours == Colours::kYuv &&
      (window.first_row % 2 != 0 || window.first_column % 2 != 0 ||
       (window.last_row % 2 != 0 && window.last_row != source.height) ||
       (window.last_column % 2 != 0 && window.last_column != source.width))) {
    return Status::kOddWindow;
  }
  const int width = window.last_column - window.first_column;
  const int height = window.last_row - window.first_row;
  const std::ptrdiff_t bytes = SizeOf(target.element);
  const Planes planes = PlanesOf(target, width, height);
  Extent extents[kChannels];
  for (int p = 0; p < planes.count; ++p) {
    const TargetPlane& plane = target.plane[p];
    if (plane.data == nullptr) return Status::kNoPointer;
    const Sides first = {width, height}, others = {planes.width, planes.height};
    const Sides sides = p == 0 ? first : others;
    if (!ExtentOf(plane, sides.width, sides.height, bytes, extents[p])) return Status::kReach;
    if (!CellsAreApart(plane, sides.width, sides.height, bytes)) return Status::kSelfOverlap;
    for (int q = 0; q < p; ++q) {
      if (extents[p].Overlaps(extents[q]) &&
          !PlanesAreApart(target.plane[q], q == 0 ? first : others, plane, sides, bytes)) {
        return Status::kSelfOverlap;
      }
    }
    for (const SourcePlane& channel : source.channel) {
      if (channel.data == nullptr) continue;
      Extent extent;
      ExtentOf(channel, source.width, source.height, SizeOf(source.element), extent);
      if (extent.Overlaps(extents[p])) return Status::kOverlap;
    }
  }
  return Status::kOk;
}

}  // namespace birthmark
