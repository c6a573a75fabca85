# Enables CUDA late, so that a machine without nvcc configures. Sets TESSERA_HAVE_CUDA and TESSERA_HAVE_CUBLASLT.
set(TESSERA_HAVE_CUDA OFF)
set(TESSERA_HAVE_CUBLASLT OFF)
if(NOT TESSERA_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
      set(CMAKE_CUDA_ARCHITECTURES 80 90a-real)
    endif()
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    # One runtime in a program: the one that CMake gives to what it links with CUDA objects.
    if(CMAKE_CUDA_RUNTIME_LIBRARY STREQUAL "Shared")
      set(TESSERA_CUDART CUDA::cudart)
    else()
      set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
      set(TESSERA_CUDART CUDA::cudart_static)
    endif()
    # CMake 3.25.1 does not know CUDA20, and the layers' cxx_std_20 asks CUDA sources for it too.
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
    set(TESSERA_HAVE_CUDA ON)
    # The header at build time; the library itself is opened by the first product that wants it.
    find_path(TESSERA_CUBLASLT_HEADER cublasLt.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
    if(NOT TESSERA_CUBLASLT STREQUAL "OFF" AND TESSERA_CUBLASLT_HEADER AND TARGET CUDA::cublasLt)
      set(TESSERA_HAVE_CUBLASLT ON)
    endif()
  elseif(TESSERA_CUDA STREQUAL "ON")
    message(FATAL_ERROR "TESSERA_CUDA=ON, but no CUDA compiler was found; install nvcc or set CMAKE_CUDA_COMPILER")
  endif()
endif()
if(TESSERA_CUBLASLT STREQUAL "ON" AND NOT TESSERA_HAVE_CUBLASLT)
  message(FATAL_ERROR "TESSERA_CUBLASLT=ON, but nvcc, cublasLt.h or libcublasLt.so was not found")
endif()
target_compile_options(tessera_flags INTERFACE
  "$<$<COMPILE_LANGUAGE:CUDA>:-lineinfo;-ftz=true;-fmad=false;--expt-relaxed-constexpr>")
if(TESSERA_WERROR)
  target_compile_options(tessera_flags INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>)
endif()

# tessera_simt_source(out kernels/x/x_cuda.cu) writes the one-line unit that compiles a .cu for simt and
# names it in `out`: CMake cannot give one file two languages in one directory.
function(tessera_simt_source out device_source)
  get_filename_component(stem ${device_source} NAME_WE)
  set(unit ${CMAKE_CURRENT_BINARY_DIR}/simt/${stem}.cpp)
  # The unit is instrumented so that our own hooks see each access of kernel code. Vectorised loops would hide
  # lanes' accesses in wide ones, contraction would fuse what the source does not fuse.
  set(options -O2 -g1 -fno-tree-vectorize -fno-tree-slp-vectorize -fno-strict-aliasing -ffp-contract=off
              -ftrivial-auto-var-init=pattern -Wno-unknown-pragmas)
  if(NOT TESSERA_SANITIZE)
    # Linked without the sanitizer's run-time library: core/simt/hooks.cpp is the run time. In a sanitizer
    # build the sanitizer watches the kernels instead.
    list(APPEND options -fsanitize=thread)
  endif()
  file(CONFIGURE OUTPUT ${unit} CONTENT "#include \"${device_source}\"\n")
  set_source_files_properties(${unit} PROPERTIES
    COMPILE_OPTIONS "${options}"
    COMPILE_DEFINITIONS TESSERA_DEVICE_TU
    OBJECT_DEPENDS ${PROJECT_SOURCE_DIR}/${device_source})
  set(${out} ${unit} PARENT_SCOPE)
endfunction()
