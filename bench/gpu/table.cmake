# Writes OUT/predicted.json, OUT/machine.txt (GPU, driver, clocks, power limit, before and after) and OUT/table.txt, and
# prints the table. Without a GPU the table holds predictions alone and ends with a line that says so.
#   cmake -DPREDICTED=<predicted_bench> -DTABLE=<gpu_table> -DSTEPS=<gpu_steps> -DOUT=<folder> -P table.cmake
cmake_minimum_required(VERSION 3.25)

function(record when)
  find_program(NVIDIA_SMI nvidia-smi)
  if(NVIDIA_SMI)
    execute_process(
      COMMAND ${NVIDIA_SMI} --format=csv
              --query-gpu=name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.draw,power.limit,temperature.gpu,persistence_mode
      OUTPUT_VARIABLE text ERROR_VARIABLE text)
    file(APPEND ${OUT}/machine.txt "${when}\n${text}")
    message("${when}\n${text}")
  else()
    file(APPEND ${OUT}/machine.txt "${when}: nvidia-smi was not found\n")
  endif()
endfunction()

file(MAKE_DIRECTORY ${OUT})
file(WRITE ${OUT}/machine.txt "")
execute_process(COMMAND ${PREDICTED} ${OUT}/predicted.json OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
record("before")
execute_process(COMMAND ${TABLE} ${OUT}/predicted.json OUTPUT_VARIABLE text COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${STEPS} OUTPUT_VARIABLE steps COMMAND_ERROR_IS_FATAL ANY)
find_program(PYTHON python3 REQUIRED)
execute_process(COMMAND ${PYTHON} -c "import sys, torch; sys.exit(not torch.cuda.is_available())"
                RESULT_VARIABLE missing OUTPUT_QUIET ERROR_QUIET)
if(missing)
  set(peer "PyTorch: skipped, no torch with a CUDA device for python3\n")
else()
  execute_process(COMMAND ${PYTHON} ${CMAKE_CURRENT_LIST_DIR}/../nn/step_peer.py --cuda
                  OUTPUT_VARIABLE peer COMMAND_ERROR_IS_FATAL ANY)
endif()
string(APPEND text "${steps}${peer}")
record("after")
file(WRITE ${OUT}/table.txt "${text}")
message("${text}\nwritten to ${OUT}")
