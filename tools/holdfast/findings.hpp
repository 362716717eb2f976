// Findings and how far a check has come, as the commands that check say them.
#pragma once

#include <holdfast/verify.hpp>

#include <string>

#include "output.hpp"
#include "progress.hpp"

namespace holdfast::tool {

Json json_of(const Finding& finding);
// `I1 entry: space "editor" 0x1000-0x2000: …`, without the end of the line.
std::string text_of(const Finding& finding);

// {"start","end"}, or null where nothing in particular is meant.
Json json_of(const Range& range);

// What `VerifyOptions::on_progress` may be: shows it on a terminal.
class CheckProgress {
  public:
    void operator()(const VerifyProgress& progress);

  private:
    StatusLine line_;
};

}  // namespace holdfast::tool
