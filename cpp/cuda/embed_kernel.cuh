// The fused pass on a GPU: the integers of CONTRACT.md, step by step, in one kernel.
//
// A block walks down a strip of columns. At each step it reads one row of pixels and every stage
// advances by one row behind the one before it, as in cpp/embed/pipeline.inc; a picture's values
// are computed once, but for the halo. A thread owns four neighbouring columns. What it needs of
// rows above waits in rings in shared memory that only it looks into; what it needs of columns
// beside its own it finds in three rows that all threads write, with a barrier behind each.
//
// Two neighbouring pixels share a 32-bit word, 16 bits each, and nearly all sums are made for both
// at once by plain additions. That is exact since no half is ever negative or leaves 16 bits:
//   luma       y_q2 + 512, in [0, 1020]; K9 and K15 down a column sum to 64, so at most 65280. The
//              filters' sums of 4096 turn the 512 into 2^21, which is what step 6 adds.
//   w + 4096   in [2049, 6143]. Orbits of eight taps bias their sum by 2^15, and those of four are
//              given the rest. MulRound15(t + 2^15, g) is MulRound15(t, g) + g, so the bias comes
//              off behind the rounding, as the sum of the gains.
//
// Speed, on paper: NOTHING HERE WAS MEASURED ON A CARD. bench/cuda.sh does that.
//   Memory: each pixel is read once from memory and, 21 rows later, once more, it is hoped from
//   the L2 cache (22 rows of all blocks that run: some 23 MB of float16 on an H100, which has
//   50 MB), and written once. These are 9 bytes a pixel for float16, 15 for float32, 6 for
//   uint8.
//   Arithmetic, the tint not counted: about 1030 instructions for the four pixels of a thread
//   (counted in the code for sm_90), with both halos some 335 for each pixel of a 4K batch. At the
//   128 that a multiprocessor can start in a cycle these are 2.6 cycles. An H100 (132
//   multiprocessors, 1.75 GHz) would so mark 88 thousand million pixels a second at the very best:
//   if it copies 2.9 TB/s, 27 % of that for float16 and 45 % for float32, short of the 70 % that
//   are wanted. On cards with less bandwidth for each multiprocessor (L4, RTX) memory would be the
//   limit. Of the 1030, 204 are the 17 products of each pixel with rounding, unpacking and sum; 75
//   the sums of the orbits; about 200 reading and converting twice; 80 the quotients. Occupancy: 48
//   272 bytes of shared memory for a block of 96 threads, so 4 blocks on a multiprocessor of an
//   H100, 3 on an A100, 2 on sm_86, sm_89 and sm_120, 1 on sm_75. ptxas of CUDA 13.0 uses 114 to
//   149 registers a thread on sm_75 and sm_90 in every format, and spills none. Blocks of 64
//   threads would lose 19 % of their columns to the halo; 96 lose 12.5 % and are the most that 48
//   kB hold.
#ifndef BIRTHMARK_CUDA_EMBED_KERNEL_CUH_
#define BIRTHMARK_CUDA_EMBED_KERNEL_CUH_

#include "cuda/formats.cuh"

namespace birthmark::cuda {

inline constexpr int kWords = kQuad / 2;
inline constexpr int kTextureBias = 4096;

// How far behind the row that is read a stage works.
inline constexpr int kTextureLag = kSmoothReach;
inline constexpr int kNormaliseLag = kTextureLag + kActivityReach;

// Depths of the rings: how many steps a row waits.
inline constexpr int kSmoothBox = 4;    // K9 = [1 2 1] * box of 4 * box of 4
inline constexpr int kActivityBox = 8;  // K15 = box of 8 * box of 8
inline constexpr int kEchoRing = 2 * kEchoReach + 1;
inline constexpr int kToneRing = kActivityReach + kEchoReach;
inline constexpr int kRoughnessRing = kEchoReach;

// Threads on each side whose columns a filter reads.
inline constexpr int kSmoothBeside = (kSmoothReach + kQuad - 1) / kQuad;
inline constexpr int kActivityBeside = (kActivityReach + kQuad - 1) / kQuad;
inline constexpr int kEchoBeside = (kEchoReach + kQuad - 1) / kQuad;

// The words of the threads from kBeside to the left of this one to kBeside to the right of it.
template <int kBeside>
struct Neighbours {
  unsigned word[kWords * (2 * kBeside + 1)];
  __device__ __forceinline__ explicit Neighbours(const uint2* own) {
#pragma unroll
    for (int i = 0; i <= 2 * kBeside; ++i) {
      const uint2 two = own[i - kBeside];
      word[kWords * i] = two.x;
      word[kWords * i + 1] = two.y;
    }
  }
  // Word i counted from this thread's first.
  __device__ __forceinline__ unsigned At(int i) const { return word[kWords * kBeside + i]; }
};

__device__ constexpr int SmoothTap(int i) {
  const int distance = i < 0 ? -i : i;
  return distance == 0 ? 14 : distance <= 3 ? 16 - 4 * distance : distance == 4 ? 1 : 0;
}
__device__ constexpr int ActivityTap(int i) {
  const int distance = i < 0 ? -i : i;
  return distance > kActivityReach ? 0 : kActivityReach + 1 - distance;
}

// The sum over the row of a filter around this thread's pixel `pixel`.
template <int (*kTap)(int), int kBeside>
__device__ __forceinline__ unsigned FilterRow(const Neighbours<kBeside>& row, int pixel) {
  unsigned sum = 0;
#pragma unroll
  for (int i = -kWords * kBeside; i < kWords * (kBeside + 1); i += 2) {
    // The taps of two words share a constant.
    const auto tap = [&](int at) { return static_cast<unsigned>(kTap(2 * i + at - pixel)); };
    const unsigned taps = tap(0) | tap(1) << 8 | tap(2) << 16 | tap(3) << 24;
    if ((taps & 0xffffU) != 0) sum = __dp2a_lo(row.At(i), taps, sum);
    if (taps >> 16 != 0) sum = __dp2a_hi(row.At(i + 1), taps, sum);
  }
  return sum;
}

__device__ __forceinline__ int Half(unsigned word, int which) {
  return static_cast<int>(which == 0 ? word & 0xffffU : word >> 16);
}
__device__ __forceinline__ int SignedHalf(unsigned word, int which) {
  return static_cast<short>(static_cast<unsigned short>(Half(word, which)));
}
__device__ __forceinline__ unsigned Pack(int low, int high) {
  return (static_cast<unsigned>(low) & 0xffffU) | static_cast<unsigned>(high) << 16;
}

// A value for each of this thread's words, with sums for both pixels of a word.
struct Quad {
  unsigned word[kWords];
  __device__ __forceinline__ Quad() : word{0, 0} {}
  __device__ __forceinline__ explicit Quad(uint2 two) : word{two.x, two.y} {}
  __device__ __forceinline__ uint2 Both() const { return make_uint2(word[0], word[1]); }
};
__device__ __forceinline__ Quad operator+(Quad a, const Quad& b) {
  a.word[0] += b.word[0];
  a.word[1] += b.word[1];
  return a;
}
__device__ __forceinline__ Quad operator-(Quad a, const Quad& b) {
  a.word[0] -= b.word[0];
  a.word[1] -= b.word[1];
  return a;
}

// Step 3, uncentred.
__device__ __forceinline__ int LumaOf(int r, int g, int b) {
  const int luma_q6 =
      MulRound15(r, kLumaRed) + MulRound15(g, kLumaGreen) + MulRound15(b, kLumaBlue);
  return (luma_q6 + 8) >> 4;
}

// Step 7: n_q2 of the texture of one row.
__device__ __forceinline__ Quad Roughness(const Quad& texture) {
  Quad roughness;
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    const auto of = [&](int which) { return (abs(SignedHalf(texture.word[i], which)) + 8) >> 4; };
    roughness.word[i] = Pack(of(0), of(1));
  }
  return roughness;
}

// Step 8. Both operands of the quotient are integers below 2^24 times a power of two: exact floats.
__device__ __forceinline__ int Normalise(int b_q6, unsigned act_q14) {
  const float above = __fmul_rn(static_cast<float>(b_q6), kTextureScale);
  const float below = static_cast<float>(static_cast<int>(act_q14) + kActivityFloorQ14);
  constexpr float kMost = static_cast<float>(kTextureMax);
  return static_cast<int>(fminf(fmaxf(__fdiv_rn(above, below), -kMost), kMost));
}

// Step 9: the orbit that holds the tap (i, j), and how many taps it has; -1 where there is none.
__device__ constexpr int OrbitOf(int i, int j) {
  int o = 0;
  for (int a = 1; a <= kRadius; ++a) {
    for (int b = 0; b <= a; ++b) {
      if (a * a + b * b > kRadiusSquaredMax) continue;
      if ((a == i && b == j) || (a == j && b == i)) return o;
      ++o;
    }
  }
  return -1;
}
__device__ constexpr int TapsOf(int orbit) {
  int o = 0;
  for (int a = 1; a <= kRadius; ++a) {
    for (int b = 0; b <= a; ++b) {
      if (a * a + b * b > kRadiusSquaredMax) continue;
      if (o == orbit) return b == 0 || b == a ? 4 : 8;
      ++o;
    }
  }
  return 0;
}

// Steps 9 to 12 for this thread's pixels: their residual is added to `values`. `pairs` are the rows
// -2k and 2k added up, k = 0..kRadius. Bits 4i to 4i + 3 of `tones` are the tone of pixel i, those
// of `roughness` its whole grey levels.
template <int kRowLength>
__device__ __forceinline__ void AddMark(const uint2 (&pairs)[kRadius + 1][kRowLength], int own,
                                        unsigned tones, unsigned roughness,
                                        const int4 (&gains)[kTones][kGainColumns / 4],
                                        Pixels& values) {
  unsigned sums[kOrbits][kWords];
#pragma unroll
  for (int o = 0; o < kOrbits; ++o) {
    const unsigned rest = static_cast<unsigned>((8 - TapsOf(o)) * kTextureBias);
#pragma unroll
    for (int i = 0; i < kWords; ++i) sums[o][i] = rest * 0x10001U;
  }
#pragma unroll
  for (int row = 0; row <= kRadius; ++row) {
    const Neighbours<kEchoBeside> pair(pairs[row] + own);
#pragma unroll
    for (int column = 0; column <= kRadius; ++column) {
      const int o = OrbitOf(row, column);
      if (o < 0) continue;
#pragma unroll
      for (int i = 0; i < kWords; ++i) {
        sums[o][i] += column == 0 ? pair.At(i) : pair.At(i - column) + pair.At(i + column);
      }
    }
  }
#pragma unroll
  for (int pixel = 0; pixel < kQuad; ++pixel) {
    const int4(&row)[kGainColumns / 4] = gains[tones >> (4 * pixel) & 15U];
    int gain[kTintColumn];
#pragma unroll
    for (int i = 0; i < kTintColumn / 4; ++i) {
      const int4 four = row[i];
      gain[4 * i] = four.x;
      gain[4 * i + 1] = four.y;
      gain[4 * i + 2] = four.z;
      gain[4 * i + 3] = four.w;
    }
    int echo = gain[kOrbits];
#pragma unroll
    for (int o = 0; o < kOrbits; ++o) {
      echo += MulRound15(Half(sums[o][pixel / 2], pixel % 2), gain[o]);
    }
    const int red = values.value[0][pixel], green = values.value[1][pixel];
    const int blueness = Clamp(values.value[2][pixel] - green, -kHueMaxQ6, kHueMaxQ6);
    const int redness = Clamp(red - green, -kHueMaxQ6, kHueMaxQ6);
    const int rough_q6 = static_cast<int>(roughness >> (4 * pixel) & 15U) << 6;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      const int4 of_channel = row[kTintColumn / 4 + c];
      const int tint =
          Clamp(of_channel.x + MulRound15(blueness, of_channel.y) +
                    MulRound15(redness, of_channel.z) + MulRound15(rough_q6, of_channel.w),
                -kTintMaxQ6, kTintMaxQ6);
      const int left = kResidualMaxQ6 - abs(tint);
      values.value[c][pixel] += tint + Clamp(echo, -left, left);
    }
    // Or all pixels' gains are fetched at once, into too many registers.
    asm volatile("" ::: "memory");
  }
}

// A block's shared memory: what waits for rows below, each thread in its own column ...
__shared__ uint2 luma_ring[kSmoothBox][kThreads];
__shared__ uint2 luma_box_ring[kSmoothBox][kThreads];
__shared__ uint2 texture_ring[kActivityBox][kThreads];
__shared__ uint2 rough_box_ring[kActivityBox][kThreads];
__shared__ uint2 normalised_ring[kEchoRing][kThreads];
__shared__ unsigned short tone_ring[kToneRing][kThreads];
__shared__ unsigned short roughness_ring[kRoughnessRing][kThreads];
// ... and what all threads of a row look into.
__shared__ uint2 smooth_row[kThreads + 2 * kSmoothBeside];
__shared__ uint2 activity_row[kThreads + 2 * kActivityBeside];
__shared__ uint2 pair_rows[kRadius + 1][kThreads + 2 * kEchoBeside];
__shared__ int4 gains[kTones][kGainColumns / 4];

template <class Reader, class Writer>
__global__ void __launch_bounds__(kThreads, 4) EmbedKernel(const __grid_constant__ Job job) {
  const int thread = static_cast<int>(threadIdx.x);
  const int block = static_cast<int>(blockIdx.x);
  const int strip = block % job.strips;
  const int stripe = block / job.strips % job.stripes;
  const int picture = block / job.strips / job.stripes;
  const int x = strip * kStripColumns - kStripHalo + kQuad * thread;
  const int first = stripe * job.stripe_rows;
  const int last = min(first + job.stripe_rows, job.source.height);
  const bool publishes = thread >= kStripHalo / kQuad && thread < kThreads - kStripHalo / kQuad &&
                         x < job.source.width;
  const bool is_inside = x >= 0 && x <= job.source.width - kQuad;
  const bool whole_reads = job.whole_reads && is_inside;
  const bool whole_writes = job.whole_writes && is_inside;
  Writer writer;
  const auto fetch = [&](int y) {
    return Reader::Fetch(job, {picture, Clamp(y, 0, job.source.height - 1), x}, whole_reads);
  };

  // Nothing lies beside a strip or above a stripe: zeros there keep all sums in their bounds. They
  // reach no pixel that is published.
  const uint2 zero = make_uint2(0, 0);
  for (auto& row : luma_ring) row[thread] = zero;
  for (auto& row : luma_box_ring) row[thread] = zero;
  for (auto& row : texture_ring) row[thread] = zero;
  for (auto& row : rough_box_ring) row[thread] = zero;
  for (auto& row : tone_ring) row[thread] = 0;
  if (thread < kSmoothBeside) {
    smooth_row[thread] = smooth_row[kSmoothBeside + kThreads + thread] = zero;
  }
  if (thread < kActivityBeside) {
    activity_row[thread] = activity_row[kActivityBeside + kThreads + thread] = zero;
  }
  if (thread < kEchoBeside) {
    for (auto& row : pair_rows) row[thread] = row[kEchoBeside + kThreads + thread] = zero;
  }
  for (int i = thread; i < kTones * kGainColumns / 4; i += kThreads) {
    const std::int32_t* const four = &job.gains[0][0] + 4 * i;
    (&gains[0][0])[i] = make_int4(four[0], four[1], four[2], four[3]);
  }

  Quad luma_box, luma_boxes, luma_boxes_1,
      luma_boxes_2;  // running sums, and those of the rows above
  Quad rough_box, rough_boxes;
  float finite = 0.0f;
  int normalised_slot = 0, tone_slot = 0, roughness_slot = 0;
  typename Reader::Raw next = fetch(first - kHalo);
  unsigned step = 0;
  for (int front = first - kHalo; front < last + kHalo; ++front, ++step) {
    const typename Reader::Raw raw = next;
    next = fetch(front + 1);
    const int finished = front - kHalo;
    // Read twice rather than kept: what the rows of the halo hold does not fit beside the rings.
    const typename Reader::Raw again = fetch(max(finished, first));

    // Luma, and K9 down the column.
    const Pixels pixels = Reader::Convert(job, raw, finite);
    Quad luma;
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      const auto of = [&](int pixel) {
        return LumaOf(pixels.value[0][pixel], pixels.value[1][pixel], pixels.value[2][pixel]);
      };
      luma.word[i] = Pack(of(2 * i), of(2 * i + 1));
    }
    const unsigned luma_slot = step % kSmoothBox;
    const Quad luma_here(luma_ring[luma_slot][thread]);  // of the row that is smoothed
    luma_ring[luma_slot][thread] = luma.Both();
    luma_box = luma_box + luma - luma_here;
    luma_boxes_2 = luma_boxes_1;
    luma_boxes_1 = luma_boxes;
    luma_boxes = luma_boxes + luma_box - Quad(luma_box_ring[luma_slot][thread]);
    luma_box_ring[luma_slot][thread] = luma_box.Both();
    smooth_row[kSmoothBeside + thread] =
        (luma_boxes + luma_boxes_1 + luma_boxes_1 + luma_boxes_2).Both();
    __syncthreads();
    if (front < first - kHalo + 2 * kSmoothReach) continue;

    // K9 along the row: texture and tone. Roughness, and K15 down the column.
    const Neighbours<kSmoothBeside> smooth(smooth_row + kSmoothBeside + thread);
    int b_q6[kQuad];
    unsigned tones = 0;
#pragma unroll
    for (int pixel = 0; pixel < kQuad; ++pixel) {
      const int low = static_cast<int>(FilterRow<SmoothTap>(smooth, pixel));
      b_q6[pixel] = ((Half(luma_here.word[pixel / 2], pixel % 2) << 12) - low + 128) >> 8;
      tones |= static_cast<unsigned>(low >> 18) << (4 * pixel);
    }
    Quad texture;
#pragma unroll
    for (int i = 0; i < kWords; ++i) texture.word[i] = Pack(b_q6[2 * i], b_q6[2 * i + 1]);
    const unsigned finished_tones = tone_ring[tone_slot][thread];
    tone_ring[tone_slot][thread] = static_cast<unsigned short>(tones);
    tone_slot = tone_slot + 1 < kToneRing ? tone_slot + 1 : 0;
    const unsigned texture_slot = step % kActivityBox;
    rough_box =
        rough_box + Roughness(texture) - Roughness(Quad(texture_ring[texture_slot][thread]));
    texture_ring[texture_slot][thread] = texture.Both();
    rough_boxes = rough_boxes + rough_box - Quad(rough_box_ring[texture_slot][thread]);
    rough_box_ring[texture_slot][thread] = rough_box.Both();
    activity_row[kActivityBeside + thread] = rough_boxes.Both();
    __syncthreads();
    if (front < first - kEchoReach + kNormaliseLag) continue;

    // K15 along the row: normalised texture. Rows added up in pairs.
    const Neighbours<kActivityBeside> activity(activity_row + kActivityBeside + thread);
    const Quad centre(
        texture_ring[(texture_slot + kActivityBox - kActivityReach) % kActivityBox][thread]);
    int w[kQuad];
    unsigned roughness = 0;
#pragma unroll
    for (int pixel = 0; pixel < kQuad; ++pixel) {
      const unsigned act_q14 = FilterRow<ActivityTap>(activity, pixel);
      w[pixel] = Normalise(SignedHalf(centre.word[pixel / 2], pixel % 2), act_q14) + kTextureBias;
      const unsigned levels = min(act_q14 >> 14, static_cast<unsigned>(kRoughnessMax));
      roughness |= levels << (4 * pixel);
    }
    const unsigned finished_roughness = roughness_ring[roughness_slot][thread];
    roughness_ring[roughness_slot][thread] = static_cast<unsigned short>(roughness);
    roughness_slot = roughness_slot + 1 < kRoughnessRing ? roughness_slot + 1 : 0;
    normalised_ring[normalised_slot][thread] = make_uint2(Pack(w[0], w[1]), Pack(w[2], w[3]));
    if (finished >= first) {
      const uint2* const newest = &normalised_ring[normalised_slot][thread];
      const auto row_before = [&](int rows) {
        return Quad(newest[(normalised_slot < rows ? kEchoRing - rows : -rows) * kThreads]);
      };
#pragma unroll
      for (int k = 0; k <= kRadius; ++k) {
        const int middle = kEchoReach, distance = kTapDistance * k;
        const Quad pair = k == 0 ? row_before(middle)
                                 : row_before(middle - distance) + row_before(middle + distance);
        pair_rows[k][kEchoBeside + thread] = pair.Both();
      }
    }
    normalised_slot = normalised_slot + 1 < kEchoRing ? normalised_slot + 1 : 0;
    __syncthreads();
    if (finished < first) continue;

    // The residual on the row's pixels.
    if (publishes) {
      float ignored = 0.0f;
      Pixels values = Reader::Convert(job, again, ignored);
      AddMark(pair_rows, kEchoBeside + thread, finished_tones, finished_roughness, gains, values);
      writer.Store(job, {picture, finished, x}, whole_writes, values, finite);
    }
  }
  if (finite != 0.0f) *job.not_finite = 1;
}

}  // namespace birthmark::cuda

#endif  // BIRTHMARK_CUDA_EMBED_KERNEL_CUH_
