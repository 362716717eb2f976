// What the crash harness found, as text and as JSON, and how far it has come.
#pragma once

#include <holdfast/crash.hpp>

#include <chrono>
#include <string>
#include <vector>

#include "output.hpp"

namespace holdfast::tool {

Json json_of(const crash::Outcome& outcome);
// `subject_arguments`: what a replay needs besides the token.
void print_text(const crash::Outcome& outcome, bool every_window,
                const std::string& subject_arguments = {});

// The results of shards, one workload's, as one.
Json merged_results(const std::vector<Json>& results);
void print_merged(const Json& merged);

// One line on a terminal: states a second, windows done, findings.
class CrashProgress {
  public:
    explicit CrashProgress(std::string what);
    void update(const crash::Progress& now);
    void clear();

  private:
    using Clock = std::chrono::steady_clock;
    std::string what_;
    bool on_terminal_;
    bool shown_ = false;
    Clock::time_point begin_ = Clock::now();
    Clock::time_point next_ = begin_ + std::chrono::seconds(1);
};

}  // namespace holdfast::tool
