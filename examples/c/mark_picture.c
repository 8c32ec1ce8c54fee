/* Reads a binary PPM picture, marks it, writes it.
 *
 *   mark_picture MARK_FILE IN.ppm OUT.ppm
 */
#include <birthmark/birthmark.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(const char* what, const char* why) {
  fprintf(stderr, "mark_picture: %s: %s\n", what, why);
  return 1;
}

/* A whole small file. NULL if it cannot be read. */
static void* read_file(const char* path, size_t most, size_t* size) {
  FILE* const file = fopen(path, "rb");
  void* const bytes = malloc(most);
  *size = file != NULL && bytes != NULL ? fread(bytes, 1, most, file) : 0;
  if (file != NULL) fclose(file);
  if (*size > 0) return bytes;
  free(bytes);
  return NULL;
}

static uint8_t* read_ppm(const char* path, int* width, int* height) {
  FILE* const file = fopen(path, "rb");
  uint8_t* pixels = NULL;
  if (file == NULL) return NULL;
  if (fscanf(file, "P6 %d %d 255", width, height) == 2 && fgetc(file) != EOF && *width >= 1 &&
      *height >= 1 && *width <= 1 << 16 && *height <= 1 << 16) {
    const size_t size = (size_t)3 * (size_t)*width * (size_t)*height;
    pixels = malloc(size);
    if (pixels != NULL && fread(pixels, 1, size, file) != size) {
      free(pixels);
      pixels = NULL;
    }
  }
  fclose(file);
  return pixels;
}

static int write_ppm(const char* path, const uint8_t* pixels, int width, int height) {
  const size_t size = (size_t)3 * (size_t)width * (size_t)height;
  FILE* const file = fopen(path, "wb");
  int good;
  if (file == NULL) return 0;
  good = fprintf(file, "P6\n%d %d\n255\n", width, height) > 0 &&
         fwrite(pixels, 1, size, file) == size;
  return fclose(file) == 0 && good;
}

int main(int count, char** argument) {
  size_t mark_size = 0;
  void* mark = NULL;
  uint8_t *in = NULL, *out = NULL;
  int width = 0, height = 0, result = 1;
  birthmark_context* context = NULL;
  birthmark_source source;
  birthmark_target target;
  birthmark_status status;

  if (count != 4) return fail("usage", "mark_picture MARK_FILE IN.ppm OUT.ppm");
  mark = read_file(argument[1], 1 << 16, &mark_size);
  if (mark == NULL) return fail(argument[1], "cannot be read");
  status = birthmark_create(mark, mark_size, NULL, &context);
  free(mark);
  if (status != BIRTHMARK_OK) return fail(argument[1], birthmark_status_text(status));

  in = read_ppm(argument[2], &width, &height);
  out = in != NULL ? malloc((size_t)3 * (size_t)width * (size_t)height) : NULL;
  if (out == NULL) {
    fail(argument[2], "is not a PPM picture that can be read");
  } else {
    birthmark_source_init(&source, sizeof(source));
    source.width = width;
    source.height = height;
    birthmark_source_pixels(&source, in, (ptrdiff_t)3 * width, 3);
    birthmark_target_init(&target, sizeof(target));
    birthmark_target_pixels(&target, out, (ptrdiff_t)3 * width, 3);
    status = birthmark_embed(context, &source, &target, NULL);
    if (status != BIRTHMARK_OK) {
      fail(argument[2], birthmark_status_text(status));
    } else if (!write_ppm(argument[3], out, width, height)) {
      fail(argument[3], "cannot be written");
    } else {
      printf("marked %d x %d pixels with the kernel %s\n", width, height,
             birthmark_kernel(context));
      result = 0;
    }
  }
  free(in);
  free(out);
  birthmark_destroy(context);
  return result;
}
