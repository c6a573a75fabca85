# Every primitive of core/gpu/prim.cuh alone, as PTX text: mnemonic, types and state space; volatile and memory clobbers
# as written; accepted by ptxas.
#   cmake -DNVCC=<nvcc> -DROOT=<source tree> -DOUT=<file.ptx> -P prims_test.cmake
cmake_minimum_required(VERSION 3.25)

execute_process(
  COMMAND ${NVCC} -std=c++20 -O3 -ftz=true -fmad=false --expt-relaxed-constexpr -arch=compute_80
          -I${ROOT} -ptx ${ROOT}/tests/core/gpu/prims_cuda.cu -o ${OUT}
  RESULT_VARIABLE code ERROR_VARIABLE errors)
if(NOT code EQUAL 0)
  message(FATAL_ERROR "prims_test: ${errors}")
endif()
# ptxas takes it for both architectures that we ship.
get_filename_component(folder ${NVCC} DIRECTORY)
find_program(PTXAS ptxas HINTS ${folder} REQUIRED)
foreach(architecture sm_80 sm_90a)
  execute_process(COMMAND ${PTXAS} -arch=${architecture} ${OUT} -o ${OUT}.cubin RESULT_VARIABLE code ERROR_VARIABLE errors)
  if(NOT code EQUAL 0)
    message(SEND_ERROR "prims_test: ptxas for ${architecture}: ${errors}")
  endif()
endforeach()
file(READ ${OUT} ptx)

# kernel | what its body must contain
foreach(row
    "p_sync_block|bar.sync"
    "p_bar_sync|bar.sync"
    "p_bar_arrive|bar.arrive"
    "p_sync_warp|bar.warp.sync"
    "p_shfl_xor|shfl.sync.bfly.b32"
    "p_shfl_down|shfl.sync.down.b32"
    "p_shfl_up|shfl.sync.up.b32"
    "p_shfl_idx|shfl.sync.idx.b32"
    "p_ballot|vote.sync.ballot.b32"
    "p_reduce_add|redux.sync.add.s32"
    "p_reduce_min|redux.sync.min.s32"
    "p_reduce_max|redux.sync.max.s32"
    "p_any|vote.sync.any.pred"
    "p_all|vote.sync.all.pred"
    "p_match_any|match.any.sync.b32"
    "p_sync_block_count|bar.red.popc.u32"
    "p_sync_block_and|bar.red.and.pred"
    "p_sync_block_or|bar.red.or.pred"
    "p_ldg|ld.global.v4"
    "p_ldg|st.global.v4"
    "p_fma|fma.rn.f32"
    "p_add|add.rn.f32"
    "p_max|max.f32"
    "p_min|min.f32"
    "p_rsqrt|rsqrt.approx.ftz.f32"
    "p_rcp|rcp.approx.ftz.f32"
    "p_ex2|ex2.approx.ftz.f32"
    "p_lg2|lg2.approx.ftz.f32"
    "p_atomic_add|atom.global.add.u32"
    "p_atomic_add_u64|atom.global.add.u64"
    "p_atomic_add_s32|atom.global.add.u32"
    "p_atomic_max|atom.global.max.u32"
    "p_atomic_min|atom.global.min.u32"
    "p_atomic_exchange|atom.global.exch.b32"
    "p_atomic_cas|atom.global.cas.b32"
    "p_load_acquire|ld.acquire.gpu.global.u32"
    "p_store_release|st.release.gpu.global.u32"
    "p_pack_bf16x2|cvt.rn.bf16x2.f32"
    "p_fence|membar.gl"
    "p_mma|mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
    "p_mma_f16|mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
    "p_mma_k8|mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32"
    "p_mma_tf32|mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
    "p_ldmatrix_x1|ldmatrix.sync.aligned.m8n8.x1.shared.b16"
    "p_ldmatrix_x2|ldmatrix.sync.aligned.m8n8.x2.shared.b16"
    "p_ldmatrix_x4_trans|ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16"
    "p_ldmatrix_x4|ldmatrix.sync.aligned.m8n8.x4.shared.b16"
    "p_ldmatrix_x2_trans|ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16"
    "p_cp_async|cp.async.cg.shared.global"
    "p_cp_async|cp.async.ca.shared.global"
    "p_cp_async|cp.async.commit_group"
    "p_cp_async|cp.async.wait_group 1")
  string(REPLACE "|" ";" row "${row}")
  list(GET row 0 kernel)
  list(GET row 1 mnemonic)
  string(FIND "${ptx}" ".entry ${kernel}(" begin)
  string(SUBSTRING "${ptx}" ${begin} -1 body)
  string(FIND "${body}" "\n}" end)
  string(SUBSTRING "${body}" 0 ${end} body)
  string(FIND "${body}" "${mnemonic}" found)
  if(begin EQUAL -1 OR found EQUAL -1)
    message(SEND_ERROR "prims_test: ${kernel} lacks ${mnemonic}:\n${body}")
  endif()
endforeach()

if(ptx MATCHES "\\.f64|ld\\.local|st\\.local")
  message(SEND_ERROR "prims_test: double precision or local memory in a primitive: ${CMAKE_MATCH_0}")
endif()

# What the compiler may assume: assembly that touches memory or meets other threads is volatile and clobbers memory,
# mma is volatile, arithmetic is neither, so that it moves freely.
file(READ ${ROOT}/core/gpu/prim.cuh source)
string(REPLACE ");" "`" source "${source}")
string(REPLACE ";" "," source "${source}")
string(REGEX MATCHALL "asm( volatile)?\\([^`]*`" statements "${source}")
list(LENGTH statements n)
if(n LESS 24)
  message(SEND_ERROR "prims_test: ${n} asm statements found in prim.cuh, expected 24 and more")
endif()
foreach(statement IN LISTS statements)
  set(volatile OFF)
  set(clobbers OFF)
  if(statement MATCHES "^asm volatile")
    set(volatile ON)
  endif()
  if(statement MATCHES ": \"memory\"")
    set(clobbers ON)
  endif()
  set(wanted OFF OFF)
  if(statement MATCHES "\"(bar|ld|st|ldmatrix|cp|membar)\\.")
    set(wanted ON ON)
  elseif(statement MATCHES "\"mma\\.")
    set(wanted ON OFF)
  endif()
  if(NOT "${volatile};${clobbers}" STREQUAL "${wanted}")
    message(SEND_ERROR "prims_test: volatile and memory clobber are ${volatile} ${clobbers}, expected ${wanted}: ${statement}")
  endif()
endforeach()
