#include "faults/fault_runner.hpp"

#include <atomic>
#include <chrono>
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
    std::atomic<std::int64_t> started_ns = 0;  // of the fault before `next`; 0 between two
};

std::int64_t now_ns() {
    return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class FaultRunner {
  public:
    FaultRunner(std::span<const std::byte> pool, const JudgePool& judge,
                const std::vector<MediaFault>& faults, double seconds_per_check)
        : pool_(pool), judge_(judge), faults_(faults), seconds_(seconds_per_check) {}

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
        const auto is_overdue = [&] {
            const std::int64_t started = board.started_ns;
            return started != 0 && static_cast<double>(now_ns() - started) / 1e9 > seconds_;
        };
        while (board.next < faults_.size()) {
            const std::uint64_t first = board.next;
            board.started_ns = 0;
            const ChildReport report =
                watch_child("the judge", is_overdue, [&] { return judge_on(board); });
            if (report.end == ChildEnd::answered && report.text.empty()) continue;
            if (report.end == ChildEnd::failed || report.end == ChildEnd::interrupted ||
                board.next == first)
                return fail(report.code, report.text);
            // It was done with that one when it was killed, and had begun another.
            if (report.end == ChildEnd::hung && !is_overdue()) {
                --board.next;
                continue;
            }
            JudgedFault& last = judged[board.next - 1];
            last.text = report.text;
            last.fate = report.end == ChildEnd::answered ? FaultFate::wrong
                        : report.end == ChildEnd::hung   ? FaultFate::hung
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
        board.started_ns = now_ns();
        PageWatch::begin_run({});
        if (judge_(image->path(), wrong) != FaultFate::harmless)
            return fail(ErrorCode::damaged, "the undamaged store is not right: " + wrong);
        image->restore(PageWatch::written());
        while (wrong.empty() && board.next < faults_.size()) {
            const std::uint64_t number = board.next++;
            board.started_ns = now_ns();
            plant(*image, faults_[number]);
            PageWatch::begin_run({});
            fates_[number] = judge_(image->path(), wrong);
            image->restore(PageWatch::written());
            board.started_ns = 0;
        }
        return wrong;
    }

    std::span<const std::byte> pool_;
    const JudgePool& judge_;
    const std::vector<MediaFault>& faults_;
    double seconds_;
    std::span<FaultFate> fates_;
};

}  // namespace

Result<std::vector<JudgedFault>> judge_faults(std::span<const std::byte> pool,
                                              const JudgePool& judge,
                                              const std::vector<MediaFault>& faults,
                                              double seconds_per_check) {
    return FaultRunner(pool, judge, faults, seconds_per_check).run();
}

Result<std::vector<JudgedFault>> judge_faults(std::span<const std::byte> pool,
                                              const Answers& before,
                                              const std::vector<MediaFault>& faults,
                                              double seconds_per_check) {
    return judge_faults(
        pool,
        [&](const std::string& path, std::string& wrong) {
            return judge_damaged(path, before, wrong);
        },
        faults, seconds_per_check);
}

}  // namespace holdfast::crash
