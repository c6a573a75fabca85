// tessera report: the page of a run, drawn by apps/python/plot.py.
#include "apps/command.h"
#include "apps/programs.h"

namespace tessera::apps {

void report_verb(const std::string& run, const Helpers& helpers) {
  auto argv = helper_command(helpers, "plot.py");
  argv.push_back(run);
  run_program(argv);
}

}  // namespace tessera::apps
