# The CUDA runtime of a program is the one that CMAKE_CUDA_RUNTIME_LIBRARY names: shared, it is needed at start;
# static, it is inside.
#   cmake -DREADELF=<readelf> -DPROGRAM=<program> -DEXPECTED=Shared|Static -P runtime_library_test.cmake
cmake_minimum_required(VERSION 3.25)

execute_process(COMMAND ${READELF} -d ${PROGRAM} OUTPUT_VARIABLE dynamic COMMAND_ERROR_IS_FATAL ANY)
set(found Static)
if(dynamic MATCHES "\\(NEEDED\\)[^\n]*libcudart\\.so")
  set(found Shared)
endif()
if(NOT found STREQUAL EXPECTED)
  message(FATAL_ERROR "runtime_library_test: expected the ${EXPECTED} CUDA runtime in ${PROGRAM}, got ${found}:\n${dynamic}")
endif()
