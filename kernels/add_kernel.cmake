# add_kernel(softmax [CPU_ONLY] [CUDA_LIBRARY softmax_lib.cpp] [LINK hwy]): one line builds, tests and benches an op.
#
# An op is seven places: kernels/x/{x.h,x.cpp,x_cpu.cpp,x_cuda.cu}, tests/kernels/x_test.cpp,
# bench/kernels/x_bench.cpp and this line. A missing file stops the configure by name; nothing is globbed.
# CPU_ONLY: the op has no x_cuda.cu yet, its CUDA and simt slots stay empty.
# CUDA_LIBRARY: the host file that calls a vendor's library (cuBLASLt), where that was found.
# LINK: libraries that the op's own sources need.

# Stops the configure unless the file exists, paths relative to the source tree.
function(_tessera_require op file)
  if(NOT EXISTS ${PROJECT_SOURCE_DIR}/${file})
    message(FATAL_ERROR "add_kernel(${op}): ${file} is missing")
  endif()
endfunction()

# Adds the device side of an op and tells x.cpp which slots of its tables are filled.
function(_tessera_add_device_slots op)
  set(dir kernels/${op})
  set(slots)
  if(TESSERA_SIMT)
    tessera_simt_source(unit ${dir}/${op}_cuda.cu)
    target_sources(tessera_kernels PRIVATE ${unit})
    list(APPEND slots TESSERA_HAS_SIMT_SLOT)
  endif()
  if(TESSERA_HAVE_CUDA)
    target_sources(tessera_kernels PRIVATE ${PROJECT_SOURCE_DIR}/${dir}/${op}_cuda.cu)
    list(APPEND slots TESSERA_HAS_CUDA_SLOT)
  endif()
  set_property(SOURCE ${PROJECT_SOURCE_DIR}/${dir}/${op}.cpp APPEND PROPERTY COMPILE_DEFINITIONS ${slots})
endfunction()

function(add_kernel op)
  cmake_parse_arguments(ARG "CPU_ONLY" "CUDA_LIBRARY" "LINK" ${ARGN})
  if(ARG_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "add_kernel(${op}): unknown arguments: ${ARG_UNPARSED_ARGUMENTS}")
  endif()
  set(dir kernels/${op})
  set(files ${dir}/${op}.h ${dir}/${op}.cpp ${dir}/${op}_cpu.cpp
      tests/kernels/${op}_test.cpp bench/kernels/${op}_bench.cpp)
  if(NOT ARG_CPU_ONLY)
    list(APPEND files ${dir}/${op}_cuda.cu)
  endif()
  foreach(file IN LISTS files)
    _tessera_require(${op} ${file})
  endforeach()

  # The layer begins with its first op: CMake refuses a library without sources.
  if(NOT TARGET tessera_kernels)
    tessera_layer(kernels LINK tessera::core)
    target_include_directories(tessera_kernels PRIVATE ${PROJECT_SOURCE_DIR})
    if(TESSERA_HAVE_CUDA)  # registers and spills of each kernel, for tests/core/gpu/budget_test.cmake
      target_compile_options(tessera_kernels PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-Xptxas=-v>)
      if(TESSERA_TESTS)  # machine code and PTX lie plainly in the objects: tests/core/gpu/machine_code_test.cpp
        target_compile_options(tessera_kernels PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--compress-mode=none>)
      endif()
      set(launcher ${PROJECT_SOURCE_DIR}/core/gpu/ptxas_log.sh ${CMAKE_CUDA_COMPILER_LAUNCHER})  # no empty word
      set_target_properties(tessera_kernels PROPERTIES CUDA_COMPILER_LAUNCHER "${launcher}")
    endif()
  endif()
  target_sources(tessera_kernels
    PRIVATE ${PROJECT_SOURCE_DIR}/${dir}/${op}.cpp ${PROJECT_SOURCE_DIR}/${dir}/${op}_cpu.cpp
    PUBLIC FILE_SET HEADERS FILES ${PROJECT_SOURCE_DIR}/${dir}/${op}.h)
  if(EXISTS ${PROJECT_SOURCE_DIR}/${dir}/${op}_types.h)  # read by x.h and the device unit
    target_sources(tessera_kernels
      PUBLIC FILE_SET HEADERS FILES ${PROJECT_SOURCE_DIR}/${dir}/${op}_types.h)
  endif()
  if(ARG_CUDA_LIBRARY AND TESSERA_HAVE_CUBLASLT)
    target_sources(tessera_kernels PRIVATE ${PROJECT_SOURCE_DIR}/${dir}/${ARG_CUDA_LIBRARY})
    target_link_libraries(tessera_kernels PRIVATE ${CMAKE_DL_LIBS})  # the library is opened, not linked
  endif()
  if(ARG_LINK)
    target_link_libraries(tessera_kernels PRIVATE ${ARG_LINK})
  endif()
  if(NOT ARG_CPU_ONLY)
    _tessera_add_device_slots(${op})
  endif()
  # tests/ and bench/ come later in the configure and read this list.
  set_property(GLOBAL APPEND PROPERTY TESSERA_KERNEL_OPS ${op})
  if(ARG_CPU_ONLY)
    set_property(GLOBAL APPEND PROPERTY TESSERA_CPU_ONLY_OPS ${op})
  endif()
endfunction()
