// What the CUDA kernel is asked to do, and how the work is cut into blocks. Plain C++, so that the
// emulator in tests/cuda_emulator can include it as well.
#ifndef BIRTHMARK_CUDA_JOB_H_
#define BIRTHMARK_CUDA_JOB_H_

#include <cstddef>
#include <cstdint>

#include "contract/arithmetic.h"
#include "embed/job.h"

namespace birthmark::cuda {

// A thread works on four neighbouring columns, a block on a strip of columns from top to bottom of
// a stripe of rows. The halo on both sides of a strip is rounded up to whole threads, so that a
// thread's columns begin at a multiple of four.
inline constexpr int kThreads = 96;
inline constexpr int kQuad = 4;
inline constexpr int kStripHalo = (kHalo + kQuad - 1) / kQuad * kQuad;
inline constexpr int kStripColumns = kThreads * kQuad - 2 * kStripHalo;

// The gains of one tone as the kernel reads them, in whole 16-byte words: one for each orbit, minus
// their sum, and from kTintColumn on four for each channel's tint.
inline constexpr int kTintColumn = (kOrbits + 1 + 3) / 4 * 4;
inline constexpr int kGainColumns = kTintColumn + 3 * kTintFields;
static_assert(kTintFields == 4);

// Passed to the kernel by value. Pictures are described as for the processor's kernels, by the
// first of the batch, with addresses on the card; an element's address is a multiple of its size.
// All of each picture is published.
struct Job {
  Source source;
  Target target;
  std::ptrdiff_t picture_stride;                 // bytes from a picture of the source to the next
  std::ptrdiff_t out_picture_stride[kChannels];  // of each plane of the target
  int* not_finite;                               // set to 1 when a value is NaN or infinite
  alignas(16) std::int32_t gains[kTones][kGainColumns];
  // CutIntoBlocks fills these,
  int strips, stripes, stripe_rows;
  // and Prepare (formats.cuh) these.
  bool whole_reads, whole_writes;  // four pixels are aligned, so they can go at once
  bool is_unit;                    // values are in [0, 1]: no scale and no offset
};

// The table in a Job for a mark's gains.
inline void SetGains(const std::int16_t (&gains)[kGainRows][kTones], Job& job) {
  for (int tone = 0; tone < kTones; ++tone) {
    std::int32_t (&row)[kGainColumns] = job.gains[tone];
    for (int column = 0; column < kGainColumns; ++column) row[column] = 0;
    for (int o = 0; o < kOrbits; ++o) {
      row[o] = gains[o][tone];
      row[kOrbits] -= gains[o][tone];
    }
    for (int i = kOrbits; i < kGainRows; ++i) row[kTintColumn + i - kOrbits] = gains[i][tone];
  }
}

// Cuts `pictures` pictures of the job's size into blocks and returns their number. `slots` blocks
// run at a time; whole rounds of them are tried, and the cheapest is taken. A stripe costs its rows
// and, since rows of the halo stop half way, about half of the halo. It begins at an even row,
// where a pair of rows that shares its colours begins. The bytes do not depend on the cut.
inline std::int64_t CutIntoBlocks(std::int64_t pictures, std::int64_t slots, Job& job) {
  const int width = job.source.width, height = job.source.height;
  const auto up = [](std::int64_t a, std::int64_t b) { return (a + b - 1) / b; };
  job.strips = static_cast<int>(up(width, kStripColumns));
  const std::int64_t columns = pictures * job.strips;
  std::int64_t least = INT64_MAX;
  for (std::int64_t rounds = 1; rounds <= 8; ++rounds) {
    const std::int64_t most = up(height, kQuad);
    const std::int64_t fit = rounds * slots / columns;
    const std::int64_t stripes = fit < 1 ? 1 : fit < most ? fit : most;
    const std::int64_t rows = 2 * up(height, 2 * stripes);
    const std::int64_t cost = up(columns * stripes, slots) * (rows + kHalo);
    if (cost >= least) continue;
    least = cost;
    job.stripe_rows = static_cast<int>(rows);
  }
  job.stripes = static_cast<int>(up(height, job.stripe_rows));
  return pictures * job.strips * job.stripes;
}

}  // namespace birthmark::cuda

#endif  // BIRTHMARK_CUDA_JOB_H_
