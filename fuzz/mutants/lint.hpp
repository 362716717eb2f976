// What a program does for nothing.
#pragma once

#include <vector>

#include "model/persistency.hpp"
#include "trace/trace.hpp"

namespace holdfast::crash {

// Flushes (events of the trace) of lines none of which was stored to since it was last flushed.
std::vector<EventIndex> redundant_flushes(const Trace& trace);

}  // namespace holdfast::crash
