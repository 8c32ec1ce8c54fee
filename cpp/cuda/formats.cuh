// Which reader and which writer a job goes through. As on the processor, the commonest formats have
// one of their own, and all others share one. What is done to pixels one by one is rare and out of
// line, or its instructions would be in everybody's way.
#ifndef BIRTHMARK_CUDA_FORMATS_CUH_
#define BIRTHMARK_CUDA_FORMATS_CUH_

#include "cuda/job.h"
#include "cuda/readers.cuh"
#include "cuda/writers.cuh"

namespace birthmark::cuda {

template <class Reader, class Writer>
struct Formats {};

// Calls `run` with the Formats of a job. Bytes have a kernel for the commonest case and share the
// one for everything else: each kernel is 40 kB of the library.
template <class Run>
auto WithFormats(const Job& job, const Run& run) {
  const bool packed = PackedWriter::Writes(job.target);
  const auto planar = [&]<class Reader>(Reader) {
    return packed ? run(Formats<Reader, PackedWriter>()) : run(Formats<Reader, AnyWriter>());
  };
  if (PlanarReader<2>::Reads(job.source)) return planar(PlanarReader<2>());
  if (PlanarReader<4>::Reads(job.source)) return planar(PlanarReader<4>());
  if (packed && PackedReader::Reads(job.source)) return run(Formats<PackedReader, PackedWriter>());
  return run(Formats<AnyReader, AnyWriter>());
}

// What the kernel of those Formats has to know of a job besides.
template <class Reader, class Writer>
void Prepare(Job& job) {
  const auto fits = [](const auto& plane, std::ptrdiff_t picture_stride, int align) {
    return reinterpret_cast<std::uintptr_t>(plane.data) % static_cast<std::uintptr_t>(align) == 0 &&
           plane.row_stride % align == 0 && picture_stride % align == 0;
  };
  job.whole_reads = job.whole_writes = job.is_unit = true;
  for (int c = 0; c < Reader::kPlanes; ++c) {
    job.whole_reads =
        job.whole_reads && fits(job.source.channel[c], job.picture_stride, Reader::kAlign);
  }
  for (int p = 0; p < Writer::kPlanes; ++p) {
    job.whole_writes =
        job.whole_writes && fits(job.target.plane[p], job.out_picture_stride[p], Writer::kAlign);
  }
  for (int c = 0; c < 3; ++c) {
    job.is_unit = job.is_unit && job.source.scale[c] == 1 && job.source.offset[c] == 0;
  }
}

}  // namespace birthmark::cuda

#endif  // BIRTHMARK_CUDA_FORMATS_CUH_
