// Ctrl-C and SIGTERM while the crash harness works.
#pragma once

namespace holdfast::tool {

// From here on these signals end the campaign in order: its processes are killed, its folder in
// /dev/shm is removed. A second one ends the command at once.
void end_campaigns_on_signals();

// The signal, or 0.
int interrupting_signal();

}  // namespace holdfast::tool
