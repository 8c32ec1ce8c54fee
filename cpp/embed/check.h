// What is refused before a kernel sees it: everything that a caller can get wrong about memory.
#ifndef BIRTHMARK_EMBED_CHECK_H_
#define BIRTHMARK_EMBED_CHECK_H_

#include "embed/job.h"

namespace birthmark {

enum class Status {
  kOk,
  kNotFinite,  // found by the kernel; all others before anything is written
  kNoMemory,
  kNoPointer,
  kSize,
  kReach,  // strides or sizes that leave the address space
  kWindow,
  kOddWindow,
  kElement,
  kRange,
  kOverlap,
  kSelfOverlap,
  kStreamFull,
  kStreamEnded,
};

// One line for a person.
const char* Describe(Status status);

inline constexpr int kMostSide = 1 << 20;

// Bytes of a value; 0 of what is no element.
std::ptrdiff_t SizeOf(Element element);

// The bytes [begin, end) among which values lie, as addresses.
struct Extent {
  std::uintptr_t begin = 0, end = 0;

  bool Overlaps(const Extent& other) const { return begin < other.end && other.begin < end; }
};

// Adds the `count` steps of a stride to an extent. False when that leaves the address space.
bool Extend(Extent& extent, std::ptrdiff_t stride, std::ptrdiff_t count);

// Whether a picture may be read, and whether a window of it may be published as asked.
Status CheckSource(const Source& source);
Status CheckJob(const EmbedJob& job);

}  // namespace birthmark

#endif  // BIRTHMARK_EMBED_CHECK_H_
