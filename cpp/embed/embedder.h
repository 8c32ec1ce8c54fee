// A mark ready to be put on pictures: gains, a kernel, and a scratch that is kept between calls.
#ifndef BIRTHMARK_EMBED_EMBEDDER_H_
#define BIRTHMARK_EMBED_EMBEDDER_H_

#include <atomic>
#include <memory>
#include <optional>

#include "contract/mark_file.h"
#include "embed/dispatch.h"
#include "embed/kernels.h"

namespace birthmark {

// Hands out a workspace and takes it back. The newest one returned is kept, so calls one after
// another allocate nothing; calls at the same time each get their own. No lock.
class WorkspaceSlot {
 public:
  WorkspaceSlot() : kept_(new Workspace()) {}
  ~WorkspaceSlot() { delete kept_.load(); }
  WorkspaceSlot(const WorkspaceSlot&) = delete;
  WorkspaceSlot& operator=(const WorkspaceSlot&) = delete;

  std::unique_ptr<Workspace> Take() {
    Workspace* kept = kept_.exchange(nullptr);
    return std::unique_ptr<Workspace>(kept != nullptr ? kept : new Workspace());
  }
  void GiveBack(std::unique_ptr<Workspace> work) { delete kept_.exchange(work.release()); }

 private:
  std::atomic<Workspace*> kept_;
};

class Embedder {
 public:
  // Without a mark it publishes plain pictures. The instruction set must be usable here.
  Embedder(const std::optional<MarkFile>& mark, Isa isa)
      : marked_(mark.has_value()), isa_(isa), kernel_(KernelFor(isa)) {
    if (mark) mark_ = *mark;
  }

  // Marks `source` into `out` (RGB rows, `out_stride` bytes apart). False when a value of the
  // source is not finite; `out` is then unspecified.
  bool Embed(const Source& source, std::uint8_t* out, std::ptrdiff_t out_stride) {
    std::unique_ptr<Workspace> work = slot_.Take();
    const EmbedJob job = {source, out,           out_stride,
                          0,      source.height, marked_ ? &mark_.gains : nullptr};
    const bool finite = kernel_->embed(job, *work);
    slot_.GiveBack(std::move(work));
    return finite;
  }

  Isa isa() const { return isa_; }

 private:
  bool marked_;
  MarkFile mark_;
  Isa isa_;
  const Kernel* kernel_;
  WorkspaceSlot slot_;
};

}  // namespace birthmark

#endif  // BIRTHMARK_EMBED_EMBEDDER_H_
