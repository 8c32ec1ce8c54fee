// A mark ready to be put on pictures: gains, a kernel, and scratch that is kept between calls.
#ifndef BIRTHMARK_EMBED_EMBEDDER_H_
#define BIRTHMARK_EMBED_EMBEDDER_H_

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include "contract/mark_file.h"
#include "embed/check.h"
#include "embed/dispatch.h"
#include "embed/kernels.h"

namespace birthmark {

// Workspaces come from the system and not from the heap: in a process that keeps a little of every
// call, each would leave a hole in the heap in which the next one does not fit.
struct Unmap {
  void operator()(void* memory) const { munmap(memory, sizeof(Workspace)); }
};
using WorkspacePointer = std::unique_ptr<Workspace, Unmap>;

// Filled with zeros. Null when there is no memory.
inline WorkspacePointer NewWorkspace() {
  static_assert(alignof(Workspace) <= 4096);
  void* const memory =
      mmap(nullptr, sizeof(Workspace), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return WorkspacePointer(memory == MAP_FAILED ? nullptr : static_cast<Workspace*>(memory));
}

// Hands out workspaces and takes them back. Some are kept, so that calls one after another, or as
// many at a time as are kept, allocate nothing. No lock.
class WorkspaceSlots {
 public:
  WorkspaceSlots() { kept_[0].store(NewWorkspace().release()); }
  ~WorkspaceSlots() {
    for (std::atomic<Workspace*>& kept : kept_) WorkspacePointer(kept.load());
  }
  WorkspaceSlots(const WorkspaceSlots&) = delete;
  WorkspaceSlots& operator=(const WorkspaceSlots&) = delete;

  WorkspacePointer Take() {
    for (std::atomic<Workspace*>& kept : kept_) {
      if (Workspace* const one = kept.exchange(nullptr); one != nullptr) {
        return WorkspacePointer(one);
      }
    }
    return NewWorkspace();
  }
  void GiveBack(WorkspacePointer work) {
    for (std::atomic<Workspace*>& kept : kept_) {
      Workspace* empty = nullptr;
      if (kept.compare_exchange_strong(empty, work.get())) {
        static_cast<void>(work.release());
        return;
      }
    }
  }

 private:
  static constexpr int kKept = 8;
  std::atomic<Workspace*> kept_[kKept] = {};
};

class Embedder {
 public:
  // Without a mark it publishes plain pictures. The instruction set must be usable here.
  Embedder(const std::optional<MarkFile>& mark, Isa isa)
      : marked_(mark.has_value()), isa_(isa), kernel_(KernelFor(isa)) {
    if (mark) mark_ = *mark;
  }

  // Marks a window of `source` into `target`; nothing is written unless all is well, but for
  // kNotFinite, after which the target is unspecified. May be called from many threads at once.
  Status Embed(const Source& source, const Target& target, const Window& window) {
    const EmbedJob job = {source, target, window, gains()};
    const Status status = CheckJob(job);
    if (status != Status::kOk) return status;
    return WithWorkspace([&](Workspace& work) { return kernel_->embed(job, work); });
  }

  // Adds the picture's statistics to `sums`, [kParts][kTones][kStatistics]; nothing unless kOk.
  Status AddStatistics(const Source& source, std::int64_t* sums) {
    return AddStatistics(source, 0, source.height, sums);
  }
  // The same of a stripe of its rows. Those of stripes add up to those of the picture, exactly.
  Status AddStatistics(const Source& source, int first_row, int last_row, std::int64_t* sums) {
    const Status status = CheckSource(source);
    if (status != Status::kOk) return status;
    if (first_row < 0 || first_row >= last_row || last_row > source.height) return Status::kWindow;
    std::int64_t own[kAllStatistics] = {};
    const Status found = WithWorkspace([&](Workspace& work) {
      return kernel_->statistics({source, first_row, last_row, own}, work);
    });
    if (found != Status::kOk) return found;
    for (int s = 0; s < kAllStatistics; ++s) sums[s] += own[s];
    return Status::kOk;
  }

  Isa isa() const { return isa_; }
  const Kernel& kernel() const { return *kernel_; }
  // Null without a mark.
  const Gains* gains() const { return marked_ ? &mark_.gains : nullptr; }

 private:
  template <class Run>
  Status WithWorkspace(Run run) {
    WorkspacePointer work = slots_.Take();
    if (work == nullptr) return Status::kNoMemory;
    const bool finite = run(*work);
    slots_.GiveBack(std::move(work));
    return finite ? Status::kOk : Status::kNotFinite;
  }

  bool marked_;
  MarkFile mark_;
  Isa isa_;
  const Kernel* kernel_;
  WorkspaceSlots slots_;
};

}  // namespace birthmark

#endif  // BIRTHMARK_EMBED_EMBEDDER_H_
