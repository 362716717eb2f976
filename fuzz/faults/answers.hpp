// What a store answers, and what it must answer once it is damaged: the same, or that it is
// damaged.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "holdfast/holdfast.hpp"

namespace holdfast::crash {

// What every page of every space translates to, around the mapped ones too.
struct Answers {
    struct Page {
        std::string space;
        std::uint64_t address = 0;
        bool mapped = false;
        std::uint64_t physical = 0;
        std::string protection = {};
        std::uint64_t word = 0;
    };
    std::vector<Page> pages;
    std::vector<std::string> spaces;
};

Result<Answers> answers_of(const Store& store);

enum class FaultFate : std::uint8_t {
    none,      // not judged
    noticed,   // a call says so, or `verify` does
    harmless,  // nothing is different
    wrong,     // an answer differs, and the call has succeeded
    killed,    // the process ended
    hung,      // it had to be ended
};

// Opens the damaged pool and asks everything that was asked before; then changes it, whatever comes
// of that. `wrong` is given what differs.
FaultFate judge_damaged(const std::string& path, const Answers& before, std::string& wrong);

}  // namespace holdfast::crash
