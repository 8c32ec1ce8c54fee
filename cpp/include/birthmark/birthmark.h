/* birthmark: marks an image model's outputs. The C interface of libbirthmark.
 *
 *   birthmark_context* context;
 *   birthmark_create(mark, mark_size, NULL, &context);
 *   birthmark_embed(context, &source, &target, NULL);
 *   birthmark_destroy(context);
 *
 * Nothing here throws, aborts, prints, or keeps state outside of its handles. Every function that
 * can fail returns a status, and birthmark_status_text says what it means. A context may be used by
 * many threads at once; it is theirs to run. After the first calls (as many at once as threads)
 * birthmark_embed allocates nothing, takes no lock and calls no system.
 */
#ifndef BIRTHMARK_BIRTHMARK_H_
#define BIRTHMARK_BIRTHMARK_H_

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define BIRTHMARK_API __attribute__((visibility("default")))
#else
#define BIRTHMARK_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when something below changes its meaning. What is added stays behind what is there:
 * structures say their size, and a library takes those of older callers. */
#define BIRTHMARK_ABI_VERSION 1

typedef int32_t birthmark_status;
enum {
  BIRTHMARK_OK = 0,
  BIRTHMARK_NOT_FINITE = 1, /* NaN or infinity in the picture; the target is unspecified */
  BIRTHMARK_NO_MEMORY = 2,
  BIRTHMARK_NO_POINTER = 3,    /* a handle, a structure or a plane is missing */
  BIRTHMARK_SIZE = 4,          /* a side is not 1 to 1048576 pixels */
  BIRTHMARK_REACH = 5,         /* strides and sizes beyond the address space */
  BIRTHMARK_WINDOW = 6,        /* empty, or not inside the picture */
  BIRTHMARK_ODD_WINDOW = 7,    /* cuts through pixels that share a colour */
  BIRTHMARK_ELEMENT = 8,       /* elements that do not go with that kind of picture */
  BIRTHMARK_RANGE = 9,         /* scales, offsets, quantum, zero point without sense */
  BIRTHMARK_OVERLAP = 10,      /* target shares memory with the source */
  BIRTHMARK_SELF_OVERLAP = 11, /* values of the target share memory */
  BIRTHMARK_STREAM_FULL = 12,
  BIRTHMARK_STREAM_ENDED = 13,
  BIRTHMARK_STRUCT_SIZE = 14, /* struct_size is not set, or of a newer version that is used */
  BIRTHMARK_KERNEL = 15,      /* no such kernel, or not on this machine */
  BIRTHMARK_NOT_A_MARK_FILE = 16,
  BIRTHMARK_OTHER_CONTRACT = 17, /* the mark file is for another version of the arithmetic */
  BIRTHMARK_TRUNCATED = 18,
  BIRTHMARK_DAMAGED = 19,
  BIRTHMARK_GAINS_OUT_OF_BOUNDS = 20
};

/* What one value is stored as. */
enum {
  BIRTHMARK_UINT8 = 0,
  BIRTHMARK_INT8 = 1,
  BIRTHMARK_UINT10 = 2, /* in the upper bits of 16, as in P010 */
  BIRTHMARK_FLOAT16 = 3,
  BIRTHMARK_BFLOAT16 = 4,
  BIRTHMARK_FLOAT32 = 5
};

enum {
  BIRTHMARK_RGB = 0,  /* red, green, blue, and alpha unless its plane is absent */
  BIRTHMARK_GREY = 1, /* one plane */
  BIRTHMARK_YUV = 2   /* luma, and both colour differences for each two by two pixels */
};

enum { BIRTHMARK_BT601 = 0, BIRTHMARK_BT709 = 1 };

/* One channel: its first value, and bytes from there to the value below and to the one beside it.
 * Strides may have either sign. Interleaved pixels are planes that begin a value apart. */
typedef struct birthmark_source_plane {
  const void* data; /* NULL: absent */
  ptrdiff_t row_stride, column_stride;
} birthmark_source_plane;

typedef struct birthmark_target_plane {
  void* data; /* NULL: absent */
  ptrdiff_t row_stride, column_stride;
} birthmark_target_plane;

/* A picture that is read. Begin with birthmark_source_init. */
typedef struct birthmark_source {
  size_t struct_size;
  int32_t width, height;
  int32_t element;                   /* not BIRTHMARK_UINT10 */
  int32_t zero_point;                /* an 8-bit q means (q - zero_point) * quantum */
  float quantum;                     /* of bytes that are no quantised numbers: 1 / 255 */
  float scale[4], offset[4];         /* value * scale + offset is 0 for black and 1 for white */
  birthmark_source_plane channel[4]; /* red, green, blue, alpha; grey: the same three times */
} birthmark_source;

/* Where a window of it goes, the window's first pixel first. Begin with birthmark_target_init. */
typedef struct birthmark_target {
  size_t struct_size;
  int32_t colours;
  int32_t element;           /* BIRTHMARK_UINT8; RGB and GREY also FLOAT32, YUV also UINT10 */
  int32_t matrix;            /* of YUV */
  int32_t full_range;        /* of YUV: whether black is 0 and not 16; 0 for UINT10 */
  float scale[4], offset[4]; /* of FLOAT32: 16320ths of white * scale + offset */
  birthmark_target_plane plane[4];
} birthmark_target;

/* Rows and columns [first, last). Published pixels depend on the window and what is within
 * BIRTHMARK_HALO of it (less, where the mark's echo is short). Nothing else is read, so that a NaN
 * elsewhere does not matter. */
typedef struct birthmark_window {
  int32_t first_row, last_row, first_column, last_column;
} birthmark_window;

#define BIRTHMARK_HALO 21
#define BIRTHMARK_TONES 16
#define BIRTHMARK_STATISTICS (2 * 16 * 18)

typedef struct birthmark_context birthmark_context;
typedef struct birthmark_stream birthmark_stream;

BIRTHMARK_API uint32_t birthmark_abi_version(void);
/* Of the arithmetic: equal versions publish equal bytes. */
BIRTHMARK_API uint32_t birthmark_contract_version(void);
/* One line for a person, never NULL. */
BIRTHMARK_API const char* birthmark_status_text(birthmark_status status);

/* Bytes, 0 black and 255 white, and no planes; for targets RGB, BT.601, limited range. Pass
 * sizeof(*source) or sizeof(*target). */
BIRTHMARK_API void birthmark_source_init(birthmark_source* source, size_t struct_size);
BIRTHMARK_API void birthmark_target_init(birthmark_target* target, size_t struct_size);
/* Sets the planes for pixels of 1, 3 or 4 values beside one another, red first. The element must be
 * set before. */
BIRTHMARK_API birthmark_status birthmark_source_pixels(birthmark_source* source, const void* data,
                                                       ptrdiff_t row_stride, int32_t channels);
BIRTHMARK_API birthmark_status birthmark_target_pixels(birthmark_target* target, void* data,
                                                       ptrdiff_t row_stride, int32_t channels);

/* `mark`: a mark file's content, copied; NULL to publish without a mark. `kernel`: "scalar",
 * "avx2", "avx512", "neon", or NULL for the fastest that works here. */
BIRTHMARK_API birthmark_status birthmark_create(const void* mark, size_t mark_size,
                                                const char* kernel, birthmark_context** context);
/* NULL is allowed. */
BIRTHMARK_API void birthmark_destroy(birthmark_context* context);
/* Name of the kernel in use. */
BIRTHMARK_API const char* birthmark_kernel(const birthmark_context* context);

/* Marks a window of the source, or all of it (NULL), into the target. Unless it returns OK or
 * NOT_FINITE, nothing was written. Stripes and tiles of one picture, by any number of threads, give
 * the same bytes as the whole. */
BIRTHMARK_API birthmark_status birthmark_embed(birthmark_context* context,
                                               const birthmark_source* source,
                                               const birthmark_target* target,
                                               const birthmark_window* window);

/* Adds what evidence is made of: [2][BIRTHMARK_TONES][18], apart from lines and on them. Unless it
 * returns OK, nothing was added. */
BIRTHMARK_API birthmark_status birthmark_statistics(birthmark_context* context,
                                                    const birthmark_source* source,
                                                    int64_t sums[BIRTHMARK_STATISTICS]);

/* A picture of which only some rows are in memory: push rows, pull rows, for one thread at a time.
 * At most 4 MiB for up to 16384 columns; nothing is allocated later on. The context may be
 * destroyed before the stream. `alpha`: whether targets will want the alpha channel. */
BIRTHMARK_API birthmark_status birthmark_stream_create(birthmark_context* context, int32_t width,
                                                       int32_t alpha, birthmark_stream** stream);
/* NULL is allowed. */
BIRTHMARK_API void birthmark_stream_destroy(birthmark_stream* stream);
/* How many rows may be pushed now, and how many be pulled. Pull all that are ready: a pull of a few
 * costs nearly as much. */
BIRTHMARK_API int32_t birthmark_stream_room(const birthmark_stream* stream);
BIRTHMARK_API int32_t birthmark_stream_ready(const birthmark_stream* stream);
/* Takes the rows of the source (its height says how many) or, unless it returns OK, none. */
BIRTHMARK_API birthmark_status birthmark_stream_push(birthmark_stream* stream,
                                                     const birthmark_source* rows);
/* After the last row: those that wait become ready. */
BIRTHMARK_API birthmark_status birthmark_stream_end(birthmark_stream* stream);
/* Writes the next `count` rows. For YUV an even number, except at the end. */
BIRTHMARK_API birthmark_status birthmark_stream_pull(birthmark_stream* stream,
                                                     const birthmark_target* target, int32_t count);

#ifdef __cplusplus
}
#endif

#endif /* BIRTHMARK_BIRTHMARK_H_ */
