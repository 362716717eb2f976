// Makes a state real and has the subject judge it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "explore/choose_states.hpp"
#include "holdfast/crash.hpp"
#include "judge/crash_image.hpp"
#include "tracer/read_set.hpp"

namespace holdfast::crash {

// Lines laid over the image's base.
using Patches = std::map<LineNumber, LineBytes>;

struct JudgeTimes {
    double patch_seconds = 0, check_seconds = 0, restore_seconds = 0;
};

class StateJudge {
  public:
    // Watches the image's pages from now on, unless the check is another program; one judge at a
    // time in a process.
    static Result<StateJudge> create(Subject& subject, CrashImage& image);
    StateJudge(StateJudge&& other) noexcept;
    ~StateJudge();

    // What the subject says: nothing if all is right. Afterwards the image is its base again.
    std::string judge(const Patches& patches, const Moment& moment);
    // The same, slowly: which of these lines the check read before it had overwritten them.
    std::string judge_reading(const Patches& patches, const Moment& moment,
                              const ReadSet::Lines& lines, std::vector<LineNumber>* read);

    // The recovery of that state under the tracer; the image is its base again.
    Result<Trace> trace_recovery(const Patches& patches, double seconds);

    const JudgeTimes& times() const { return times_; }
    CrashImage& image() { return *image_; }

  private:
    std::string judge_watching(const Patches& patches, const Moment& moment,
                               const std::vector<std::uint64_t>& closed_pages);
    StateJudge(Subject& subject, CrashImage& image) : subject_(&subject), image_(&image) {}
    Subject* subject_;
    CrashImage* image_;
    JudgeTimes times_;
    bool watching_ = false;
};

}  // namespace holdfast::crash
