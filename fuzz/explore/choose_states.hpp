// Which states of a crash window to judge, and in what order.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "explore/crash_windows.hpp"

namespace holdfast::crash {

// One state of a window: the candidate of each of its lines.
using Choice = std::vector<std::uint16_t>;

struct ChooseOptions {
    Exploration exploration = Exploration::full;
    std::uint64_t at_most = 0;
    std::uint64_t seed = 0;
};

// Calls `judge` with each chosen state, until it returns false. Lines that are not relevant
// (indices into the window's) keep their visible content. If all states that are new in the window
// and differ in a relevant line are no more than `at_most`, those are what is chosen, each once.
// Otherwise, each once: the extremes (nothing lost; all lost that may be; one line early or lost;
// the program's order, event by event; one line with any other content), then a random sample.
// Returns whether the choice was exhaustive.
bool choose_states(const CrashWindow& window, const std::vector<std::size_t>& relevant,
                   const ChooseOptions& options, const std::function<bool(const Choice&)>& judge);

std::uint64_t hash_of(const Choice& choice);

}  // namespace holdfast::crash
