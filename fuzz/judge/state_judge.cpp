#include "judge/state_judge.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "judge/traced_run.hpp"
#include "tracer/page_watch.hpp"

namespace holdfast::crash {
namespace {

constexpr std::uint64_t kPage = 4096;

class Stopwatch {
  public:
    explicit Stopwatch(double& into) : into_(into) {}
    ~Stopwatch() {
        into_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
    }
    Stopwatch(const Stopwatch&) = delete;
    Stopwatch& operator=(const Stopwatch&) = delete;

  private:
    double& into_;
    std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace

Result<StateJudge> StateJudge::create(Subject& subject, CrashImage& image) {
    if (subject.is_other_program()) return StateJudge(subject, image);
    if (auto started = PageWatch::start(image.path(), image.size_bytes()); !started)
        return std::unexpected(started.error());
    StateJudge judge(subject, image);
    judge.watching_ = true;
    return judge;
}

StateJudge::StateJudge(StateJudge&& other) noexcept
    : subject_(other.subject_),
      image_(other.image_),
      times_(other.times_),
      watching_(std::exchange(other.watching_, false)) {}

StateJudge::~StateJudge() {
    if (watching_) PageWatch::stop();
}

std::string StateJudge::judge(const Patches& patches, const Moment& moment) {
    return judge_watching(patches, moment, {});
}

std::string StateJudge::judge_watching(const Patches& patches, const Moment& moment,
                                       const std::vector<std::uint64_t>& closed_pages) {
    {
        const Stopwatch watch(times_.patch_seconds);
        for (const auto& [line, bytes] : patches) image_->patch(line, bytes);
        if (watching_) PageWatch::begin_run(closed_pages);
    }
    std::string wrong;
    {
        const Stopwatch watch(times_.check_seconds);
        try {
            wrong = subject_->check(image_->path(), moment);
        } catch (const std::exception& error) {
            wrong = std::string("the check threw: ") + error.what();
        }
    }
    const Stopwatch watch(times_.restore_seconds);
    if (!watching_) {
        image_->restore_by_comparing();
        return wrong;
    }
    image_->restore(PageWatch::written());
    return wrong;
}

std::string StateJudge::judge_reading(const Patches& patches, const Moment& moment,
                                      const ReadSet::Lines& lines, std::vector<LineNumber>* read) {
    std::vector<std::uint64_t> pages;
    for (const auto& [line, bytes] : lines)
        if (pages.empty() || pages.back() != line * kLineBytes / kPage)
            pages.push_back(line * kLineBytes / kPage);
    ReadSet::begin(lines);
    std::string wrong = judge_watching(patches, moment, pages);
    *read = ReadSet::end();
    return wrong;
}

Result<Trace> StateJudge::trace_recovery(const Patches& patches, double seconds) {
    for (const auto& [line, bytes] : patches) image_->patch(line, bytes);
    auto trace = trace_process(image_->path(), seconds,
                               [&](Operations&) { return subject_->recover(image_->path()); });
    if (!trace) {
        image_->restore_all();
        return trace;
    }
    std::vector<std::uint64_t> pages;
    for (const Event& event : trace->events) {
        if (!is_store(event.kind)) continue;
        for (std::uint64_t page = event.offset / kPage;
             page <= (event.offset + std::max<std::uint64_t>(event.size, 1) - 1) / kPage; ++page)
            pages.push_back(page);
    }
    std::sort(pages.begin(), pages.end());
    pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
    image_->restore(pages);
    return trace;
}

}  // namespace holdfast::crash
