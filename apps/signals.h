// What SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU do: batch systems warn by these.
#pragma once

namespace tessera::apps {

/// From now on such a signal is only noted, for stop_requested(): a training then saves a
/// checkpoint and leaves. A second SIGINT ends the process; the others may come again and again.
void stop_by_checkpoint();

/// From now on such a signal ends the process with exit code 75: all that was computed is stored,
/// and the same command goes on.
void stop_at_once();

/// Whether a signal was noted.
bool stop_requested();

}  // namespace tessera::apps
