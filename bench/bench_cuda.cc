// On a machine with a card: compares the CUDA kernel's bytes with the processor's, then times it
// against a plain copy. bench/cuda.sh builds and runs it.
//   bench_cuda            all of it
//   bench_cuda compare    small pictures only, for compute-sanitizer
#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string_view>
#include <vector>

#include "contract/mark_file.h"
#include "cuda/launch.h"
#include "embed/dispatch.h"
#include "embed/kernels.h"

namespace {

using birthmark::cuda::Failure;
using birthmark::cuda::Format;
using birthmark::cuda::Job;

constexpr std::uintptr_t kStream = 1;  // the legacy default stream
constexpr int kRepeats = 30;

void Stop(const char* what) {
  std::fprintf(stderr, "error: %s\n", what);
  std::exit(1);
}
void Check(cudaError_t error) {
  if (error != cudaSuccess) Stop(cudaGetErrorString(error));
}
void Check(Failure failure) {
  if (failure != nullptr) Stop(failure);
}

class CardMemory {
 public:
  explicit CardMemory(std::size_t bytes) : bytes_(bytes) { Check(cudaMalloc(&at_, bytes)); }
  ~CardMemory() { cudaFree(at_); }
  CardMemory(const CardMemory&) = delete;
  CardMemory& operator=(const CardMemory&) = delete;
  unsigned char* at() const { return static_cast<unsigned char*>(at_); }
  void Put(const void* from) { Check(cudaMemcpy(at_, from, bytes_, cudaMemcpyHostToDevice)); }
  void Get(void* to) const { Check(cudaMemcpy(to, at_, bytes_, cudaMemcpyDeviceToHost)); }

 private:
  void* at_ = nullptr;
  std::size_t bytes_;
};

struct Medians {
  float low, middle, high;  // milliseconds: the middle half and the median
};
template <class Run>
Medians Time(Run&& run) {
  cudaEvent_t begin, end;
  Check(cudaEventCreate(&begin));
  Check(cudaEventCreate(&end));
  for (int i = 0; i < 3; ++i) run();
  std::vector<float> times(kRepeats);
  for (float& time : times) {
    Check(cudaEventRecord(begin, cudaStreamLegacy));
    run();
    Check(cudaEventRecord(end, cudaStreamLegacy));
    Check(cudaEventSynchronize(end));
    Check(cudaEventElapsedTime(&time, begin, end));
  }
  Check(cudaEventDestroy(begin));
  Check(cudaEventDestroy(end));
  std::sort(times.begin(), times.end());
  return {times[kRepeats / 4], times[kRepeats / 2], times[3 * kRepeats / 4]};
}

const char* NameOf(Format format) {
  return format == Format::kPlanarFloat  ? "float32 NCHW"
         : format == Format::kPlanarHalf ? "float16 NCHW"
                                         : "uint8 RGB";
}

// The float16 bits of a value in [0, 1] of which 8 bits are used: exact.
std::uint16_t HalfOf(int level) {
  if (level == 0) return 0;
  int exponent = 0, fraction = level;  // level / 256 = 1.f * 2^(exponent - 8)
  while (fraction >= 2) {
    fraction >>= 1;
    ++exponent;
  }
  const int rest = (level - (1 << exponent)) << (10 - exponent);
  return static_cast<std::uint16_t>((exponent - 8 + 15) << 10 | rest);
}

// A batch of noise on a slope, on the host as the processor's kernels read it and on the card.
class Batch {
 public:
  Batch(Format format, int width, int height, int pictures, int pad, std::mt19937& random)
      : format_(format), width_(width), height_(height), pictures_(pictures) {
    const bool planar = format != Format::kRgb8;
    item_ = format == Format::kPlanarFloat ? 4 : format == Format::kPlanarHalf ? 2 : 1;
    row_ = item_ * ((planar ? 1 : 3) * width + pad);
    plane_ = row_ * height;
    picture_ = (planar ? 3 : 1) * plane_;
    std::vector<unsigned char> memory(static_cast<std::size_t>(picture_ * pictures), 0xff);
    levels_.resize(static_cast<std::size_t>(3) * static_cast<std::size_t>(width) *
                   static_cast<std::size_t>(height) * static_cast<std::size_t>(pictures));
    std::size_t next = 0;
    for (int i = 0; i < pictures; ++i) {
      for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
          for (int c = 0; c < 3; ++c) {
            const int level = (x / 8 + y / 5 + 60 * c + static_cast<int>(random() % 40)) % 256;
            levels_[next++] = static_cast<std::uint8_t>(level);
            unsigned char* const to = memory.data() + i * picture_ + y * row_ +
                                      (planar ? c * plane_ + item_ * x : 3 * x + c);
            if (format == Format::kPlanarFloat) {
              const float value = static_cast<float>(level) / 256.0f;
              std::memcpy(to, &value, sizeof(value));
            } else if (format == Format::kPlanarHalf) {
              const std::uint16_t value = HalfOf(level);
              std::memcpy(to, &value, sizeof(value));
            } else {
              *to = static_cast<unsigned char>(level);
            }
          }
        }
      }
    }
    card_ = std::make_unique<CardMemory>(memory.size());
    card_->Put(memory.data());
  }

  void Fill(Job& job) const {
    const bool planar = format_ != Format::kRgb8;
    for (int c = 0; c < 3; ++c) job.planes[c] = card_->at() + (planar ? c * plane_ : 0);
    job.row_stride = row_;
    job.picture_stride = picture_;
    job.width = width_;
    job.height = height_;
  }

  // What the processor publishes of one picture.
  std::vector<std::uint8_t> Expected(int picture, const birthmark::MarkFile& mark) const {
    const std::size_t pixels = static_cast<std::size_t>(width_) * static_cast<std::size_t>(height_);
    const std::uint8_t* const levels =
        levels_.data() + 3 * pixels * static_cast<std::size_t>(picture);
    std::vector<float> floats;
    birthmark::Source source;
    source.width = width_;
    source.height = height_;
    birthmark::Target target;
    std::vector<std::uint8_t> out(3 * pixels);
    for (int c = 0; c < 3; ++c) target.plane[c] = {out.data() + c, std::ptrdiff_t{3} * width_, 3};
    if (format_ == Format::kRgb8) {
      source.element = birthmark::Element::kUint8;
      for (int c = 0; c < 3; ++c) source.channel[c] = {levels + c, std::ptrdiff_t{3} * width_, 3};
    } else {
      constexpr std::ptrdiff_t kFloat = sizeof(float);
      floats.resize(3 * pixels);
      for (std::size_t i = 0; i < 3 * pixels; ++i) {
        floats[i % 3 * pixels + i / 3] = static_cast<float>(levels[i]) / 256.0f;
      }
      for (std::size_t c = 0; c < 3; ++c) {
        source.channel[c] = {reinterpret_cast<const std::uint8_t*>(floats.data() + c * pixels),
                             width_ * kFloat, kFloat};
      }
    }
    const auto work = std::make_unique<birthmark::Workspace>();
    const birthmark::EmbedJob job = {source, target, {0, height_, 0, width_}, &mark.gains};
    if (!birthmark::KernelFor(birthmark::BestIsa())->embed(job, *work)) Stop("NaN on the host");
    return out;
  }

 private:
  Format format_;
  int width_, height_, pictures_;
  std::ptrdiff_t item_, row_, plane_, picture_;
  std::vector<std::uint8_t> levels_;
  std::unique_ptr<CardMemory> card_;
};

class Bench {
 public:
  Bench() {
    for (auto& orbit : mark_.gains) {
      for (std::int16_t& gain : orbit)
        gain = static_cast<std::int16_t>(static_cast<int>(random_() % 601) - 300);
    }
    Check(birthmark::cuda::AllocateFlag(not_finite_));
  }
  ~Bench() { birthmark::cuda::FreeFlag(not_finite_); }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  void Compare(bool small) {
    struct Size {
      int width, height, pictures;
    };
    std::vector<Size> sizes = {{1, 1, 1},   {3, 2, 2},    {16, 16, 1},  {70, 130, 3},
                               {335, 9, 1}, {336, 10, 2}, {337, 11, 1}, {700, 61, 1}};
    if (!small) {
      sizes.insert(sizes.end(),
                   {{1920, 1080, 4}, {3840, 2160, 2}, {1919, 1079, 3}, {16384, 300, 1}});
    }
    int compared = 0;
    for (Format format : {Format::kPlanarHalf, Format::kPlanarFloat, Format::kRgb8}) {
      for (const Size& size : sizes) {
        for (int pad : {0, 1, 8}) {
          const Batch batch(format, size.width, size.height, size.pictures, pad, random_);
          CompareOne(format, batch, size.width, size.height, size.pictures, pad);
          ++compared;
        }
      }
    }
    std::printf("bytes: equal to the processor's (%s) in all of %d batches of 3 formats\n",
                birthmark::IsaName(birthmark::BestIsa()).data(), compared);
  }

  void TimeAll() {
    constexpr int kWidth = 3840, kHeight = 2160, kPictures = 8;
    constexpr std::size_t kCopied = std::size_t{512} << 20;
    const CardMemory from(kCopied), to(kCopied);
    const Medians copy = Time([&] {
      Check(
          cudaMemcpyAsync(to.at(), from.at(), kCopied, cudaMemcpyDeviceToDevice, cudaStreamLegacy));
    });
    const double copy_gb_s = 2.0 * static_cast<double>(kCopied) / 1e6 / copy.middle;
    std::printf(
        "copy on the card: %.0f GB/s read and written (%.3f ms, middle half %.3f .. %.3f)\n",
        copy_gb_s, copy.middle, copy.low, copy.high);
    for (Format format : {Format::kPlanarHalf, Format::kPlanarFloat, Format::kRgb8}) {
      const Batch batch(format, kWidth, kHeight, kPictures, 0, random_);
      CompareOne(format, batch, kWidth, kHeight, kPictures, 0);
      const std::size_t pixels = std::size_t{kWidth} * kHeight * kPictures;
      const CardMemory out(3 * pixels);
      Job job = JobFor(batch, out.at(), 3 * kWidth, kHeight);
      const Medians marked =
          Time([&] { Check(birthmark::cuda::Launch(format, kPictures, 0, kStream, job)); });
      const double bytes = static_cast<double>(pixels) * (format == Format::kPlanarFloat  ? 15
                                                          : format == Format::kPlanarHalf ? 9
                                                                                          : 6);
      const double gb_s = bytes / 1e6 / marked.middle;
      std::printf(
          "%-13s -> RGB8, 3840x2160 x 8: %.3f ms (middle half %.3f .. %.3f), %.0f GB/s, "
          "%.0f %% of the copy's\n",
          NameOf(format), marked.middle, marked.low, marked.high, gb_s, 100 * gb_s / copy_gb_s);
    }
  }

 private:
  Job JobFor(const Batch& batch, unsigned char* out, std::ptrdiff_t out_row, int height) const {
    Job job = {};
    batch.Fill(job);
    job.out = out;
    job.out_row_stride = out_row;
    job.out_picture_stride = out_row * height;
    job.not_finite = not_finite_;
    birthmark::cuda::SetGains(mark_.gains, job);
    return job;
  }

  void CompareOne(Format format, const Batch& batch, int width, int height, int pictures, int pad) {
    const std::size_t row = 3 * static_cast<std::size_t>(width) + static_cast<std::size_t>(pad);
    const std::size_t picture = row * static_cast<std::size_t>(height);
    std::vector<unsigned char> found(picture * static_cast<std::size_t>(pictures), 77);
    CardMemory out(found.size());
    out.Put(found.data());
    Job job = JobFor(batch, out.at(), static_cast<std::ptrdiff_t>(row), height);
    Check(birthmark::cuda::Launch(format, pictures, 0, kStream, job));
    Check(birthmark::cuda::Synchronize(0, kStream));
    if (*not_finite_ != 0) Stop("finite values were taken for others");
    out.Get(found.data());
    for (int i = 0; i < pictures; ++i) {
      const std::vector<std::uint8_t> expected = batch.Expected(i, mark_);
      for (std::size_t y = 0; y < static_cast<std::size_t>(height); ++y) {
        const unsigned char* const line =
            found.data() + static_cast<std::size_t>(i) * picture + y * row;
        const bool same = std::equal(line, line + 3 * width,
                                     expected.data() + 3 * y * static_cast<std::size_t>(width)) &&
                          std::all_of(line + 3 * width, line + row,
                                      [](unsigned char byte) { return byte == 77; });
        if (!same) {
          std::fprintf(stderr, "error: %s, %dx%d, picture %d of %d, pad %d: row %zu differs\n",
                       NameOf(format), width, height, i, pictures, pad, y);
          std::exit(1);
        }
      }
    }
  }

  std::mt19937 random_{20240229};
  birthmark::MarkFile mark_;
  int* not_finite_ = nullptr;
};

}  // namespace

int main(int count, char** arguments) {
  int devices = 0;
  const Failure failure = birthmark::cuda::CountDevices(devices);
  if (failure != nullptr) {
    std::printf("no GPU: %s. Nothing was compared on a card and nothing was timed.\n", failure);
    return 2;
  }
  cudaDeviceProp card;
  Check(cudaGetDeviceProperties(&card, 0));
  std::printf("card: %s, compute capability %d.%d, %d multiprocessors\n", card.name, card.major,
              card.minor, card.multiProcessorCount);
  const bool small = count > 1 && std::string_view(arguments[1]) == "compare";
  Bench bench;
  bench.Compare(small);
  if (!small) bench.TimeAll();
  return 0;
}
