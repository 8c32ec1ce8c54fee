# Installs libbirthmark to a folder of its own and uses it from there as a stranger would: a C
# program, through the CMake package and through pkg-config, shared and static. Looks into the
# shared library: nothing but the interface is visible, no C++ runtime is asked for, and it is small.
set(prefix ${BUILD}/installed)
set(work ${BUILD}/installed_example)
file(REMOVE_RECURSE ${prefix} ${work})
file(MAKE_DIRECTORY ${work})

function(run)
  execute_process(COMMAND ${ARGN} OUTPUT_VARIABLE output ERROR_VARIABLE errors
    RESULT_VARIABLE result)
  if(result)
    string(REPLACE ";" " " command "${ARGN}")
    message(FATAL_ERROR "${command}\n${output}${errors}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

run(${CMAKE_COMMAND} --install ${BUILD} --config ${CONFIG} --prefix ${prefix} --component library)
file(GLOB library ${prefix}/lib*/libbirthmark.so ${prefix}/lib/*/libbirthmark.so)
file(GLOB pkgconfig ${prefix}/lib*/pkgconfig ${prefix}/lib/*/pkgconfig)
get_filename_component(folder ${library} DIRECTORY)

run(${NM} -D --defined-only ${library})
string(REGEX MATCHALL "[^\n ]+\n" visible "${output}\n")
foreach(name IN LISTS visible)
  string(STRIP "${name}" name)
  if(name AND NOT name MATCHES "^birthmark_[a-z_]+$")
    message(FATAL_ERROR "visible, but no part of the interface: ${name}")
  endif()
endforeach()
run(${READELF} -d ${library})
if(output MATCHES "libstdc\\+\\+|libgcc")
  message(FATAL_ERROR "needs a C++ runtime:\n${output}")
endif()
run(${STRIP} -o ${work}/stripped.so ${library})
file(SIZE ${work}/stripped.so size)
message(STATUS "${size} bytes stripped")
if(size GREATER 400000)
  message(FATAL_ERROR "libbirthmark.so has ${size} bytes, more than 400000")
endif()

# The test's own files: a mark, a picture, and what must become of it.
run(${MAKER} ${work})

run(${CMAKE_COMMAND} -S ${SOURCE}/examples/c -B ${work}/build -DCMAKE_PREFIX_PATH=${prefix})
run(${CMAKE_COMMAND} --build ${work}/build)
set(programs ${work}/build/mark_picture_shared ${work}/build/mark_picture_static)

find_program(PKG_CONFIG pkg-config)
if(PKG_CONFIG)
  set(ENV{PKG_CONFIG_PATH} ${pkgconfig})
  run(${PKG_CONFIG} --cflags --libs birthmark)
  separate_arguments(flags UNIX_COMMAND "${output}")
  run(cc -Wall -Wextra -Werror -std=c99 -pedantic -o ${work}/by_pkgconfig
    ${SOURCE}/examples/c/mark_picture.c ${flags} -Wl,-rpath,${folder})
  list(APPEND programs ${work}/by_pkgconfig)
endif()

foreach(program IN LISTS programs)
  file(REMOVE ${work}/out.ppm)
  run(${program} ${work}/example.mark ${work}/in.ppm ${work}/out.ppm)
  message(STATUS "${output}")
  run(${CMAKE_COMMAND} -E compare_files ${work}/out.ppm ${work}/expected.ppm)
  # What is wrong is said in one line, and nothing is written.
  file(REMOVE ${work}/out.ppm)
  execute_process(COMMAND ${program} ${work}/other.mark ${work}/in.ppm ${work}/out.ppm
    RESULT_VARIABLE result ERROR_VARIABLE errors)
  if(NOT result EQUAL 1 OR NOT errors MATCHES "another version of the arithmetic contract\n$"
      OR EXISTS ${work}/out.ppm)
    message(FATAL_ERROR "a mark file of another version: ${result} ${errors}")
  endif()
endforeach()
