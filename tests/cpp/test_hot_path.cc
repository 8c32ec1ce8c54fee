// While a picture is marked nothing is allocated, no lock is taken and the system is not called;
// and a stream stays within its four megabytes.
#include <dlfcn.h>
#include <pthread.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#if defined(__linux__)
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "embed/embedder.h"
#include "embed/row_stream.h"
#include "tests/cpp/check.h"

namespace {

// Counted by the functions below, which the linker takes in place of the C library's.
std::size_t allocations = 0, allocated_bytes = 0, locks = 0;

template <class Function>
Function* Original(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

#if defined(__SANITIZE_ADDRESS__) || !defined(__GLIBC__)
// The sanitizer has such functions of its own, and other C libraries have no second name for them.
constexpr bool kCounting = false;
#else
constexpr bool kCounting = true;
extern "C" {

void* __libc_malloc(std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);

void* malloc(std::size_t size) {
  ++allocations;
  allocated_bytes += size;
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
  ++allocations;
  allocated_bytes += count * size;
  return __libc_calloc(count, size);
}
void* realloc(void* old, std::size_t size) {
  ++allocations;
  allocated_bytes += size;
  return __libc_realloc(old, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  ++allocations;
  allocated_bytes += size;
  return __libc_memalign(alignment, size);
}

int pthread_mutex_lock(pthread_mutex_t* mutex) {
  ++locks;
  return Original<int(pthread_mutex_t*)>("pthread_mutex_lock")(mutex);
}

}  // extern "C"
#endif

namespace {

using birthmark::Colours;
using birthmark::Element;
using birthmark::Embedder;
using birthmark::Source;
using birthmark::Status;
using birthmark::Target;

constexpr int kWidth = 1500, kHeight = 120;

// A format in and out that is loaded and stored straight from registers, and two that are not.
struct Way {
  Element element;
  Colours colours;
};
constexpr Way kWays[] = {{Element::kFloat32, Colours::kRgb},
                         {Element::kUint8, Colours::kRgb},
                         {Element::kFloat16, Colours::kYuv},
                         {Element::kBfloat16, Colours::kGrey}};

std::vector<std::uint8_t> memory_in(std::size_t{12} * kWidth * kHeight);
std::vector<std::uint8_t> memory_out(std::size_t{3} * kWidth * kHeight);

Source SourceOf(Element element) {
  Source source;
  source.element = element;
  source.width = kWidth;
  source.height = kHeight;
  const int bytes = element == Element::kFloat32 ? 4 : element == Element::kUint8 ? 1 : 2;
  for (int c = 0; c < 3; ++c) {
    source.channel[c] = element == Element::kUint8
                            ? birthmark::SourcePlane{memory_in.data() + c, 3 * kWidth, 3}
                            : birthmark::SourcePlane{
                                  memory_in.data() + std::ptrdiff_t{c} * bytes * kWidth * kHeight,
                                  std::ptrdiff_t{bytes} * kWidth, bytes};
  }
  return source;
}

Target TargetOf(Colours colours) {
  Target target;
  target.colours = colours;
  std::uint8_t* const out = memory_out.data();
  for (int c = 0; c < 3; ++c) target.plane[c] = {out + c, 3 * kWidth, 3};
  if (colours != Colours::kRgb) {
    target.plane[0] = {out, kWidth, 1};
    target.plane[1] = {out + kWidth * kHeight, kWidth, 2};
    target.plane[2] = {out + kWidth * kHeight + 1, kWidth, 2};
  }
  return target;
}

bool EmbedAll(Embedder& embedder) {
  for (const Way& way : kWays) {
    if (embedder.Embed(SourceOf(way.element), TargetOf(way.colours), {0, kHeight, 0, kWidth}) !=
        Status::kOk) {
      return false;
    }
  }
  return true;
}

birthmark::MarkFile ExampleMark() {
  birthmark::MarkFile mark;
  for (auto& orbit : mark.gains) {
    for (std::int16_t& gain : orbit) gain = 100;
  }
  return mark;
}

void NothingIsAllocatedOrLocked(birthmark::Isa isa) {
  Embedder embedder(ExampleMark(), isa);
  CHECK(!kCounting || allocations > 0);
  const std::size_t allocated_before = allocations, locked_before = locks;
  const bool good = EmbedAll(embedder);
  CHECK(allocations == allocated_before);
  CHECK(locks == locked_before);
  CHECK(good);
}

#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
// A process in this mode is killed by any system call but reading, writing and leaving.
void TheSystemIsNotCalled(birthmark::Isa isa) {
  Embedder embedder(ExampleMark(), isa);
  CHECK(EmbedAll(embedder));
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) _exit(77);
    const bool good = EmbedAll(embedder);
    syscall(SYS_exit, good ? 0 : 1);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
    std::puts("hot_path: system calls cannot be forbidden here, so that was not tested");
    return;
  }
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
#endif

void AStreamStaysWithinItsMemory() {
  const Embedder embedder(ExampleMark(), birthmark::BestIsa());
  for (int width : {1, 640, 4096, 16384}) {
    for (bool alpha : {false, true}) {
      const std::size_t bytes_before = allocated_bytes;
      birthmark::RowStream stream(embedder, width, alpha);
      CHECK(stream.status() == Status::kOk);
      CHECK(allocated_bytes - bytes_before <= birthmark::RowStream::kStreamBytes);
      CHECK(stream.room() >= birthmark::kHalo + 2);
      const std::size_t allocated_before = allocations;
      Source rows = SourceOf(Element::kUint8);
      for (auto& channel : rows.channel) {
        channel.row_stride = 0;
        channel.column_stride = 0;
      }
      rows.width = width;
      rows.height = birthmark::kHalo + 2;
      CHECK(stream.Push(rows) == Status::kOk);
      CHECK(stream.ready() == 2);
      if (width <= kWidth) {
        Target target = TargetOf(Colours::kRgb);
        CHECK(stream.Pull(target, 2) == Status::kOk);
      }
      CHECK(allocations == allocated_before);
    }
  }
}

}  // namespace

int main() {
  for (birthmark::Isa isa : birthmark::kAllIsas) {
    if (!birthmark::IsaIsUsable(isa)) continue;
    NothingIsAllocatedOrLocked(isa);
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
    TheSystemIsNotCalled(isa);
#endif
  }
  AStreamStaysWithinItsMemory();
  std::puts("hot_path: ok");
  return 0;
}
