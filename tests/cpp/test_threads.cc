// One embedder, one context and the streams made of it, used by more threads than workspaces are
// kept: the bytes of one thread. Meant for the thread sanitizer.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "embed/embedder.h"
#include "embed/row_stream.h"
#include "tests/cpp/check.h"
#include "tests/cpp/example.h"

namespace {

using birthmark::Embedder;
using birthmark::Isa;
using birthmark::Source;
using birthmark::Status;
using birthmark::Target;
using Bytes = std::vector<std::uint8_t>;

constexpr int kThreads = 12, kRounds = 8;
constexpr int kWidth = 201, kHeight = 96;  // stripes of an even number of rows
constexpr std::ptrdiff_t kStride = 3 * kWidth;

Bytes Picture() { return example::Noise(std::size_t{kHeight} * kStride); }

Source SourceOf(const Bytes& picture) {
  Source source;
  source.element = birthmark::Element::kUint8;
  source.width = kWidth;
  source.height = kHeight;
  for (int c = 0; c < 3; ++c) source.channel[c] = {picture.data() + c, kStride, 3};
  return source;
}
Target TargetOf(Bytes& out, int row) {
  Target target;
  for (int c = 0; c < 3; ++c) target.plane[c] = {out.data() + row * kStride + c, kStride, 3};
  return target;
}

template <class Run>
void InThreads(Run run) {
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back([&run, i] { run(i); });
  for (std::thread& thread : threads) thread.join();
}

void StripesOfOnePicture(Embedder& embedder, const Source& source, const Bytes& expected) {
  constexpr int kRows = kHeight / kThreads;
  static_assert(kRows * kThreads == kHeight);
  for (int round = 0; round < kRounds; ++round) {
    Bytes out(expected.size());
    InThreads([&](int i) {
      const birthmark::Window stripe = {i * kRows, (i + 1) * kRows, 0, kWidth};
      CHECK(embedder.Embed(source, TargetOf(out, i * kRows), stripe) == Status::kOk);
    });
    CHECK(out == expected);
  }
}

void PicturesAndStatisticsAtOnce(Embedder& embedder, const Source& source, const Bytes& expected) {
  std::int64_t once[birthmark::kAllStatistics] = {};
  CHECK(embedder.AddStatistics(source, once) == Status::kOk);
  InThreads([&](int i) {
    for (int round = 0; round < kRounds; ++round) {
      if ((i + round) % 2 == 0) {
        Bytes out(expected.size());
        CHECK(embedder.Embed(source, TargetOf(out, 0), {0, kHeight, 0, kWidth}) == Status::kOk);
        CHECK(out == expected);
      } else {
        std::int64_t sums[birthmark::kAllStatistics] = {};
        CHECK(embedder.AddStatistics(source, sums) == Status::kOk);
        CHECK(std::memcmp(sums, once, sizeof(sums)) == 0);
      }
    }
  });
}

void StreamsOfOneEmbedder(const Embedder& embedder, const Source& source, const Bytes& expected) {
  InThreads([&](int) {
    birthmark::RowStream stream(embedder, kWidth, false);
    CHECK(stream.Push(source) == Status::kOk);
    stream.End();
    Bytes out(expected.size());
    CHECK(stream.Pull(TargetOf(out, 0), kHeight) == Status::kOk);
    CHECK(out == expected);
  });
}

}  // namespace

int main() {
  const Bytes picture = Picture();
  const Source source = SourceOf(picture);
  for (Isa isa : birthmark::kAllIsas) {
    if (!birthmark::IsaIsUsable(isa)) continue;
    Embedder embedder(example::Mark(), isa);
    Bytes expected(picture.size());
    CHECK(embedder.Embed(source, TargetOf(expected, 0), {0, kHeight, 0, kWidth}) == Status::kOk);
    StripesOfOnePicture(embedder, source, expected);
    PicturesAndStatisticsAtOnce(embedder, source, expected);
    StreamsOfOneEmbedder(embedder, source, expected);
  }
  std::puts("threads: ok");
  return 0;
}
