# The tests of device kernels on a GPU under one tool of NVIDIA's compute-sanitizer, program by program: a finding ends
# a program with status 1. racecheck sees shared memory only; races between blocks are what simt finds.
#   cmake -DTOOL=memcheck -DPROBE=<gpu_probe> "-DPROGRAMS=<program>;<program>" -P sanitizer_test.cmake
# -DSANITIZER names another tool to run instead, for the test of this script.
cmake_minimum_required(VERSION 3.25)

execute_process(COMMAND ${PROBE} RESULT_VARIABLE code OUTPUT_VARIABLE text)
if(code EQUAL 77)
  message(STATUS "sanitizer_test ${TOOL} ${text}")
  return()
elseif(NOT code EQUAL 0)
  message(FATAL_ERROR "sanitizer_test: ${PROBE} ended with ${code}: ${text}")
endif()
find_program(SANITIZER compute-sanitizer HINTS /usr/local/cuda/bin ENV CUDA_PATH PATH_SUFFIXES bin)
if(NOT SANITIZER)
  message(STATUS "sanitizer_test ${TOOL} skipped: compute-sanitizer was not found")
  return()
endif()

set(ENV{TESSERA_TEST_DEVICES} cuda)
set(failed)
foreach(program IN LISTS PROGRAMS)
  execute_process(
    COMMAND ${SANITIZER} --tool ${TOOL} --error-exitcode 1 --target-processes all ${program} --gtest_filter=-*Simt*
    RESULT_VARIABLE code OUTPUT_VARIABLE text ERROR_VARIABLE text)
  get_filename_component(name ${program} NAME)
  if(code EQUAL 0)
    message(STATUS "${TOOL} ${name}: clean")
  else()
    list(APPEND failed ${name})
    message(STATUS "${TOOL} ${name}: ended with ${code}\n${text}")
  endif()
endforeach()
if(failed)
  list(JOIN failed " " failed)
  message(FATAL_ERROR "sanitizer_test: ${TOOL} found faults in ${failed}")
endif()
