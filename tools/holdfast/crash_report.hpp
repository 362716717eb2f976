// What the crash harness found, as text and as JSON, and how far it has come.
#pragma once

#include <holdfast/crash.hpp>

#include <string>
#include <vector>

#include "output.hpp"
#include "progress.hpp"

namespace holdfast::tool {

Json json_of(const crash::Outcome& outcome);
// `subject_arguments`: what a replay needs besides the token.
void print_text(const crash::Outcome& outcome, bool every_window,
                const std::string& subject_arguments = {});

// The results of shards, one workload's, as one.
Json merged_results(const std::vector<Json>& results);
void print_merged(const Json& merged);

// States a second, windows done, findings.
class CrashProgress {
  public:
    explicit CrashProgress(std::string what) : what_(std::move(what)) {}
    void update(const crash::Progress& now);
    void clear() { line_.clear(); }

  private:
    std::string what_;
    StatusLine line_;
};

}  // namespace holdfast::tool
