# Every primitive of core/gpu/prim.cuh alone, as PTX text: mnemonic, types and state space.
#   cmake -DNVCC=<nvcc> -DROOT=<source tree> -DOUT=<file.ptx> -P prims_test.cmake
cmake_minimum_required(VERSION 3.25)

execute_process(
  COMMAND ${NVCC} -std=c++20 -O3 -ftz=true -fmad=false --expt-relaxed-constexpr -arch=compute_80
          -I${ROOT} -ptx ${ROOT}/tests/core/gpu/prims_cuda.cu -o ${OUT}
  RESULT_VARIABLE code ERROR_VARIABLE errors)
if(NOT code EQUAL 0)
  message(FATAL_ERROR "prims_test: ${errors}")
endif()
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
    "p_ldg|ld.global.v4"
    "p_ldg|st.global.v4"
    "p_fma|fma.rn.f32"
    "p_add|add.rn.f32"
    "p_rsqrt|rsqrt.approx.ftz.f32"
    "p_rcp|rcp.approx.ftz.f32"
    "p_ex2|ex2.approx.ftz.f32"
    "p_lg2|lg2.approx.ftz.f32"
    "p_atomic_add|atom.global.add.u32"
    "p_fence|membar.gl"
    "p_mma|mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
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
