// tessera report: the page of a run, drawn by apps/python/plot.py.
#include "apps/command.h"
#include "apps/programs.h"

namespace tessera::apps {

void report_verb(const std::string& run, const std::string& python) {
  run_program({python, script("plot.py"), run});
}

}  // namespace tessera::apps
