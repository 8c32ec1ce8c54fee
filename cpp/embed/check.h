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

// Whether a picture may be read, and whether a window of it may be published as asked.
Status CheckSource(const Source& source);
Status CheckJob(const EmbedJob& job);

}  // namespace birthmark

#endif  // BIRTHMARK_EMBED_CHECK_H_
