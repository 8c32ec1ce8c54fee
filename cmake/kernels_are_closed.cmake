# Fails if a kernel object file holds anything that another file could pick up by accident: the
# linker keeps one copy of a shared inline function, and if that is the AVX-512 one, an older
# machine stops with an illegal instruction. Also refuses code that runs when the library loads.
#   cmake -DNM=nm -DOBJDUMP=objdump -DOBJECTS="a.o;b.o" -P kernels_are_closed.cmake
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} -C --defined-only ${object}
    OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[0-9a-f]+ [WwVvuC] [^\n]+" shared "${symbols}")
  if(shared)
    string(REPLACE ";" "\n  " shared "${shared}")
    message(FATAL_ERROR "${object} shares code with other files:\n  ${shared}")
  endif()
  execute_process(COMMAND ${OBJDUMP} -h ${object}
    OUTPUT_VARIABLE sections COMMAND_ERROR_IS_FATAL ANY)
  if(sections MATCHES "\\.(init_array|ctors)")
    message(FATAL_ERROR "${object} runs code when the library is loaded (static initialiser)")
  endif()
  message(STATUS "closed: ${object}")
endforeach()
