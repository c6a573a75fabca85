# The guards of the layering, over the text of the sources:
#   cmake -DROOT=<source tree> -P tests/layering_test.cmake
# fails on an upward include, a dependency outside its gate, a device word outside core/gpu, or a print that does not go
# through apps/output.h, which notices lost output.
# -DSELF_TEST=ON plants one violation of each kind and demands that it is found.

cmake_minimum_required(VERSION 3.25)

# What each layer may not include.
set(UPWARD_core "kernels|nn|train|apps|tests|bench")
set(UPWARD_kernels "nn|train|apps|tests|bench")
set(UPWARD_nn "train|apps|tests|bench")
set(UPWARD_train "apps|tests|bench")
set(UPWARD_apps "tests|bench")

# Dependency gates: header pattern | files that may include it.
set(GATES
  "hdf5|^train/hdf5(_[a-z]+)?\\."
  "cublasLt|^kernels/matmul/"
  "toml\\+\\+|^train/config\\.cpp$"
  "onnx|^train/export_onnx\\.cpp$"
  "fastjet|^train/jets\\.cpp$"
  "HepMC3|^train/simulation/hepmc\\.cpp$"
  "mpi\\.h|^train/distributed\\.cpp$"
  "nccl\\.h|^train/distributed\\.cpp$"
  "CLI|^apps/"
  "spdlog|^apps/"
  "boost|^core/simt/"
  "cuda_runtime|^core/gpu/")

# Device words that belong into core/gpu alone.
set(DEVICE_WORDS "(^|[^A-Za-z0-9_])(asm[ (]|__asm|__shfl|__shared__|__syncthreads|__syncwarp|__ballot|__activemask|threadIdx|blockIdx)|<<<")

# Ways of printing that nobody checks.
set(PRINTS "fmt::print|std::(cout|cerr|clog|puts|printf)")

# Only the layers; tests and bench see all.
function(layering_violations root out)
  set(found)
  foreach(layer core kernels nn train apps)
    file(GLOB_RECURSE files RELATIVE ${root}
         ${root}/${layer}/*.h ${root}/${layer}/*.cpp ${root}/${layer}/*.cu ${root}/${layer}/*.cuh)
    foreach(file IN LISTS files)
      file(STRINGS ${root}/${file} includes REGEX "^[ \t]*#[ \t]*include")
      foreach(line IN LISTS includes)
        if(line MATCHES "\"(${UPWARD_${layer}})/")
          list(APPEND found "${file}: includes upward: ${line}")
        endif()
        foreach(gate IN LISTS GATES)
          string(REPLACE "|" ";" gate "${gate}")
          list(GET gate 0 header)
          list(GET gate 1 allowed)
          if(line MATCHES "<${header}" AND NOT file MATCHES "${allowed}")
            list(APPEND found "${file}: outside its gate: ${line}")
          endif()
        endforeach()
      endforeach()
      if(NOT file MATCHES "^core/")
        file(STRINGS ${root}/${file} prints REGEX "${PRINTS}")
        foreach(line IN LISTS prints)
          list(APPEND found "${file}: prints past apps/output.h: ${line}")
        endforeach()
      endif()
      if(NOT file MATCHES "^core/gpu/")
        file(STRINGS ${root}/${file} words REGEX "${DEVICE_WORDS}")
        foreach(line IN LISTS words)
          string(REPLACE ";" " " line "${line}")
          if(NOT line MATCHES "^[ \t]*//")
            list(APPEND found "${file}: device word outside core/gpu: ${line}")
          endif()
        endforeach()
      endif()
    endforeach()
  endforeach()
  set(${out} "${found}" PARENT_SCOPE)
endfunction()

# One violation of each kind in a small tree; the clean file must not be reported.
function(self_test)
  string(RANDOM LENGTH 8 name)
  set(tree ${CMAKE_CURRENT_BINARY_DIR}/layering_${name})
  file(WRITE ${tree}/core/up.h "#include \"kernels/softmax/softmax.h\"\n")
  file(WRITE ${tree}/nn/gate.cpp "#include <hdf5.h>\n")
  file(WRITE ${tree}/kernels/x/x_cuda.cu "int i = threadIdx.x;\n")
  file(WRITE ${tree}/kernels/x/y_cuda.cu "kernel<<<1, 32>>>()\n")
  file(WRITE ${tree}/apps/print.cpp "fmt::print(1)\n")
  file(WRITE ${tree}/train/hdf5.cpp "#include <hdf5.h>\n// threadIdx in a comment\nint basm = 0;\n")
  layering_violations(${tree} found)
  file(REMOVE_RECURSE ${tree})
  list(LENGTH found n)
  if(NOT n EQUAL 5)
    message(FATAL_ERROR "layering_test: expected 5 planted violations, found ${n}: ${found}")
  endif()
endfunction()

if(SELF_TEST)
  self_test()
else()
  layering_violations(${ROOT} found)
  if(found)
    list(JOIN found "\n  " text)
    message(FATAL_ERROR "layering_test:\n  ${text}")
  endif()
endif()
