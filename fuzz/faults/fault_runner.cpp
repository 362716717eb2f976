#include "faults/fault_runner.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <new>

#include "judge/child_process.hpp"
#include "judge/crash_image.hpp"
#include "judge/libpmemobj_memory.hpp"
#include "tracer/page_watch.hpp"

namespace holdfast::crash {
namespace {

// Progress of a child, in memory that outlives it; a fate for each fault follows.
struct Board {
    std::atomic<std::uint64_t> next = 0;
};

class FaultRunner {
  public:
    FaultRunner(std::span<const std::byte> pool, const Answers& answers,
                const std::vector<MediaFault>& faults, double seconds_per_check)
        : pool_(pool),
          answers_(answers),
          faults_(faults),
          seconds_(static_cast<unsigned>(std::max(1.0, std::ceil(seconds_per_check)))) {}

    Result<std::vector<JudgedFault>> run() {
        const std::span<std::byte> memory = shared_memory(sizeof(Board) + faults_.size());
        if (memory.empty()) return fail(ErrorCode::io, "no memory to share with the judges");
        Board* const board = new (memory.data()) Board;
        fates_ = {reinterpret_cast<FaultFate*>(memory.data() + sizeof(Board)), faults_.size()};
        std::vector<JudgedFault> judged(faults_.size());
        const auto done = judge_all(*board, judged);
        for (std::size_t i = 0; i < judged.size(); ++i)
            if (judged[i].fate == FaultFate::none) judged[i].fate = fates_[i];
        release_shared_memory(memory);
        if (!done) return std::unexpected(done.error());
        return judged;
    }

  private:
    // A child judges until a fault ends it or has made it answer wrongly: it is not to be trusted
    // any more then, and another one goes on.
    Result<void> judge_all(Board& board, std::vector<JudgedFault>& judged) {
        while (board.next < faults_.size()) {
            const std::uint64_t first = board.next;
            const auto answer =
                run_in_child_with_answer("the judge", 3600, [&] { return judge_on(board); });
            if (answer && answer->empty()) continue;
            if (!answer && (answer.error().code != ErrorCode::io || board.next == first))
                return std::unexpected(answer.error());
            JudgedFault& last = judged[board.next - 1];
            last.text = answer ? *answer : answer.error().message;
            last.fate = answer                                             ? FaultFate::wrong
                        : last.text.find("signal 14") != std::string::npos ? FaultFate::hung
                                                                           : FaultFate::killed;
        }
        return {};
    }

    // What was wrong with the last of those that it judged; nothing, if that is all there are.
    Result<std::string> judge_on(Board& board) {
        give_libpmemobj_memory_of_its_own();
        auto image = CrashImage::create(pool_);
        if (!image) return std::unexpected(image.error());
        if (auto watched = PageWatch::start(image->path(), image->size_bytes()); !watched)
            return std::unexpected(watched.error());
        std::string wrong;
        PageWatch::begin_run({});
        if (judge_damaged(image->path(), answers_, wrong) != FaultFate::harmless)
            return fail(ErrorCode::damaged, "the undamaged store is not right: " + wrong);
        image->restore(PageWatch::written());
        while (wrong.empty() && board.next < faults_.size()) {
            const std::uint64_t number = board.next++;
            alarm(seconds_);  // a hang ends as signal 14
            plant(*image, faults_[number]);
            PageWatch::begin_run({});
            fates_[number] = judge_damaged(image->path(), answers_, wrong);
            image->restore(PageWatch::written());
        }
        alarm(0);
        return wrong;
    }

    std::span<const std::byte> pool_;
    const Answers& answers_;
    const std::vector<MediaFault>& faults_;
    unsigned seconds_;
    std::span<FaultFate> fates_;
};

}  // namespace

Result<std::vector<JudgedFault>> judge_faults(std::span<const std::byte> pool,
                                              const Answers& before,
                                              const std::vector<MediaFault>& faults,
                                              double seconds_per_check) {
    return FaultRunner(pool, before, faults, seconds_per_check).run();
}

}  // namespace holdfast::crash
