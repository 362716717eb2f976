#include "campaign/workers.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <new>
#include <optional>

#include "campaign/result_json.hpp"
#include "judge/child_process.hpp"
#include "judge/crash_image.hpp"
#include "judge/libpmemobj_memory.hpp"

namespace holdfast::crash {
namespace {

using Clock = std::chrono::steady_clock;

std::uint64_t now_ns() {
    return static_cast<std::uint64_t>(
        std::chrono::nanoseconds(Clock::now().time_since_epoch()).count());
}

// Where a worker is, in memory that outlives it.
struct Slot {
    std::atomic<std::uint64_t> window = 0;
    std::atomic<std::uint64_t> state = 0;       // number of the state within the window
    std::atomic<std::uint64_t> started_ns = 0;  // of the state; 0 between states
};

constexpr std::size_t kMaxJobs = 256;

// What workers share.
struct Board {
    std::atomic<std::uint64_t> next_window = 0;
    std::atomic<std::uint64_t> states = 0;
    std::atomic<bool> stop = false;
    Slot slots[kMaxJobs];
};

// A state that ended a worker, and how.
struct Ended {
    std::uint64_t window = 0, state = 0;
    WindowObserver::KnownEnd how;
};

constexpr std::uint64_t kNoWindow = ~std::uint64_t{0};
// Checks of one window that end their process, before its rest is given up.
constexpr std::size_t kEndedPerWindow = 6;

class Worker {
  public:
    Worker(Subject& subject, const TracedRun& run, const Options& options,
           const RestrictWindow& restrict, std::uint64_t windows, Board& board, Slot& slot,
           const std::vector<Ended>& ended, int pipe)
        : subject_(subject),
          run_(run),
          options_(options),
          restrict_(restrict),
          windows_(windows),
          board_(board),
          slot_(slot),
          ended_(ended),
          pipe_(pipe) {}

    // `resumed`: the window in which the worker before this one ended.
    Result<void> work(std::uint64_t resumed) {
        if (!subject_.is_other_program()) give_libpmemobj_memory_of_its_own();
        auto image = CrashImage::create(run_.initial_image);
        if (!image) return std::unexpected(image.error());
        auto judge = StateJudge::create(subject_, *image);
        if (!judge) return std::unexpected(judge.error());
        CrashWindows windows(run_.trace, run_.initial_image, options_.platform, kLineLimit);
        const WindowObserver observer{.before_state = [this] { return before_state(); },
                                      .go_on = [this] { return go_on(); }};
        WindowExplorer explorer(*judge, subject_, options_, observer);
        std::uint64_t wanted = resumed != kNoWindow ? resumed : take();
        while (wanted != kNoWindow && windows.next()) {
            for (const auto& [line, bytes] : windows.newly_durable()) image->set_base(line, bytes);
            if (windows.window().number != wanted) continue;
            CrashWindow window = windows.window();
            if (!restrict_ || restrict_(window)) {
                slot_.window = wanted;
                slot_.state = 0;
                send(explorer.explore(window));
                slot_.started_ns = 0;
            }
            wanted = take();
        }
        return {};
    }

  private:
    std::uint64_t take() {
        while (!board_.stop) {
            const std::uint64_t window = board_.next_window.fetch_add(1);
            if (window >= windows_) return kNoWindow;
            if (window % options_.shards == options_.shard) return window;
        }
        return kNoWindow;
    }

    bool go_on() const {
        return !board_.stop && (options_.states == 0 || board_.states < options_.states);
    }

    std::optional<WindowObserver::KnownEnd> before_state() {
        const std::uint64_t number = slot_.state++;
        for (const Ended& each : ended_)
            if (each.window == slot_.window && each.state == number) return each.how;
        ++board_.states;
        slot_.started_ns = now_ns();
        return std::nullopt;
    }

    void send(const WindowResult& result) {
        const std::string text =
            to_json(result).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
        for (std::size_t at = 0; at < text.size();) {
            const ssize_t written = write(pipe_, text.data() + at, text.size() - at);
            if (written < 0 && errno == EINTR) continue;
            if (written <= 0) return;
            at += static_cast<std::size_t>(written);
        }
    }

    Subject& subject_;
    const TracedRun& run_;
    const Options& options_;
    const RestrictWindow& restrict_;
    std::uint64_t windows_;
    Board& board_;
    Slot& slot_;
    const std::vector<Ended>& ended_;
    int pipe_;
};

// The parent's side of one worker.
struct Job {
    pid_t process = -1;
    int pipe = -1;
    std::string unread;
    std::vector<Ended> ended;
    bool killed_for_time = false;
};

class Foreman {
  public:
    Foreman(Subject& subject, const TracedRun& run, const Options& options,
            const RestrictWindow& restrict, std::uint64_t windows,
            const std::function<void(WindowResult)>& done)
        : subject_(subject),
          run_(run),
          options_(options),
          restrict_(restrict),
          windows_(windows),
          done_(done) {}

    Result<bool> supervise() {
        memory_ = shared_memory(sizeof(Board));
        if (memory_.empty()) return fail(ErrorCode::io, "no memory for the workers");
        board_ = new (memory_.data()) Board;
        jobs_.resize(std::clamp<std::size_t>(options_.jobs, 1, kMaxJobs));
        Result<void> well{};
        for (std::size_t i = 0; i < jobs_.size() && well; ++i) well = start(i, kNoWindow);
        const auto begin = Clock::now();
        while (well && any_running()) {
            well = wait_for_news();
            if (interrupted()) well = fail(ErrorCode::io, "the campaign was interrupted");
            const double spent = std::chrono::duration<double>(Clock::now() - begin).count();
            if ((options_.seconds > 0 && spent > options_.seconds) ||
                (options_.states != 0 && board_->states >= options_.states) ||
                violations_ >= options_.stop_after_violations) {
                if (board_->next_window < windows_ || any_running()) cut_short_ = true;
                board_->stop = true;
            }
            if (options_.progress)
                options_.progress(
                    {board_->states, windows_done_, windows_ / options_.shards, violations_});
        }
        for (Job& job : jobs_) {
            if (job.process > 0) end_child(job.process);
            if (job.pipe >= 0) close(job.pipe);
        }
        release_shared_memory(memory_);
        if (!well) return std::unexpected(well.error());
        return !cut_short_;
    }

  private:
    Result<void> start(std::size_t index, std::uint64_t resumed) {
        Job& job = jobs_[index];
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0) return fail(ErrorCode::io, "no pipe to a worker");
        job.killed_for_time = false;
        board_->slots[index].started_ns = 0;
        job.process = fork_child([&] {
            close(ends[0]);
            Worker worker(subject_, run_, options_, restrict_, windows_, *board_,
                          board_->slots[index], job.ended, ends[1]);
            const auto worked = worker.work(resumed);
            if (!worked) {
                const std::string text =
                    nlohmann::json{{"error", worked.error().message}}.dump() + "\n";
                if (write(ends[1], text.data(), text.size()) < 0) _exit(2);
            }
        });
        close(ends[1]);
        if (job.process < 0) {
            close(ends[0]);
            return fail(ErrorCode::io, "cannot start a worker process");
        }
        job.pipe = ends[0];
        return {};
    }

    bool any_running() const {
        return std::any_of(jobs_.begin(), jobs_.end(),
                           [](const Job& job) { return job.pipe >= 0; });
    }

    Result<void> wait_for_news() {
        std::vector<pollfd> waiting;
        std::vector<std::size_t> index_of;
        for (std::size_t i = 0; i < jobs_.size(); ++i) {
            if (jobs_[i].pipe < 0) continue;
            waiting.push_back({jobs_[i].pipe, POLLIN, 0});
            index_of.push_back(i);
        }
        poll(waiting.data(), waiting.size(), 100);
        for (std::size_t i = 0; i < waiting.size(); ++i) {
            if (waiting[i].revents == 0) continue;
            if (auto read = read_from(index_of[i]); !read) return read;
        }
        kill_hanging();
        return {};
    }

    Result<void> read_from(std::size_t index) {
        Job& job = jobs_[index];
        char part[65536];
        const ssize_t size = read(job.pipe, part, sizeof part);
        if (size < 0 && errno == EINTR) return {};
        if (size <= 0) return ended(index);
        job.unread.append(part, static_cast<std::size_t>(size));
        for (std::size_t end; (end = job.unread.find('\n')) != std::string::npos;) {
            const auto json = nlohmann::json::parse(job.unread.substr(0, end));
            job.unread.erase(0, end + 1);
            if (json.contains("error")) return fail(ErrorCode::io, json["error"]);
            WindowResult result = window_result_of(json);
            violations_ += result.violations.size();
            ++windows_done_;
            done_(std::move(result));
        }
        return {};
    }

    // A worker closed its pipe: it is done, or something ended it.
    Result<void> ended(std::size_t index) {
        Job& job = jobs_[index];
        close(job.pipe);
        job.pipe = -1;
        job.unread.clear();
        int status = 0;
        while (waitpid(job.process, &status, 0) < 0 && errno == EINTR) {
        }
        job.process = -1;
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
        const Slot& slot = board_->slots[index];
        if (slot.started_ns == 0)
            return fail(ErrorCode::io, fmt::format("a worker ended between two states, with {}",
                                                   describe_end(status)));
        const std::uint64_t window = slot.window;
        WindowObserver::KnownEnd how{Violation::Kind::died,
                                     "the check ended with " + describe_end(status)};
        if (job.killed_for_time)
            how = {Violation::Kind::hung,
                   fmt::format("the check did not end within {} s", options_.seconds_per_check)};
        job.ended.push_back({window, slot.state - 1, how});
        const auto in_window =
            std::count_if(job.ended.begin(), job.ended.end(),
                          [&](const Ended& each) { return each.window == window; });
        if (static_cast<std::size_t>(in_window) > kEndedPerWindow) {
            WindowResult given_up;
            given_up.number = window;
            given_up.coverage.why_not = "given up: too many checks ended their process";
            // Without a token: the states, each of which had one, were this worker's to report.
            given_up.violations.push_back(
                {.parts = {}, .kind = how.kind, .text = how.text, .moment = {}, .lines = {}});
            violations_ += 1;
            done_(std::move(given_up));
            return start(index, kNoWindow);
        }
        return start(index, window);
    }

    void kill_hanging() {
        for (std::size_t i = 0; i < jobs_.size(); ++i) {
            const std::uint64_t started = board_->slots[i].started_ns;
            if (jobs_[i].process <= 0 || started == 0) continue;
            const double seconds = static_cast<double>(now_ns() - started) / 1e9;
            if (seconds < options_.seconds_per_check) continue;
            jobs_[i].killed_for_time = true;
            kill(-jobs_[i].process, SIGKILL);  // and what it has started
        }
    }

    Subject& subject_;
    const TracedRun& run_;
    const Options& options_;
    const RestrictWindow& restrict_;
    std::uint64_t windows_;
    const std::function<void(WindowResult)>& done_;
    std::span<std::byte> memory_;
    Board* board_ = nullptr;
    std::vector<Job> jobs_;
    std::uint64_t violations_ = 0, windows_done_ = 0;
    bool cut_short_ = false;
};

}  // namespace

Result<bool> explore_all(Subject& subject, const TracedRun& run, const Options& options,
                         const RestrictWindow& restrict, std::uint64_t windows,
                         const std::function<void(WindowResult)>& done) {
    return Foreman(subject, run, options, restrict, windows, done).supervise();
}

}  // namespace holdfast::crash
