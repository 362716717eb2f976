// The crash windows of a trace: stretches between two moments at which something becomes durable.
//
// Within a window the set of contents that a crash may leave only grows with each store, so that
// the set at its end is that of all its crash points: exploring windows is exploring every event.
// What a window has in common with the one before it is counted there, unless an acknowledgement in
// between has made the judge stricter.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "holdfast/crash.hpp"
#include "model/persistency.hpp"
#include "trace/trace.hpp"

namespace holdfast::crash {

// Candidates of one line that are listed at most: the same wherever a token is made or read.
inline constexpr std::size_t kLineLimit = 256;

struct PendingLine {
    LineNumber line = 0;
    std::vector<Candidate> candidates;  // first what is durable, last what is visible
    std::vector<bool> is_new;           // has a store of this window in it
    // Which candidate was visible after each store, in order.
    std::vector<std::pair<EventIndex, std::uint16_t>> history;
    bool complete = true;  // these are all candidates
};

struct CrashWindow {
    std::uint64_t number = 0;
    EventIndex first_event = 0, end_event = 0;  // power fails before an event in (first, end]
    Moment moment;
    bool all_new = false;  // the judge is stricter than before: old states count again
    std::vector<PendingLine> lines;

    // Of states that the window before does not have.
    double new_states() const;
    // If only these lines (indices into `lines`) matter.
    double new_states(const std::vector<std::size_t>& relevant) const;
    // What was the content right before the event: the candidate of each line.
    std::vector<std::uint16_t> in_program_order(EventIndex before) const;
};

class CrashWindows {
  public:
    // At most `line_limit` candidates of one line. `trace` and `initial_image` must outlive this.
    CrashWindows(const Trace& trace, std::span<const std::byte> initial_image, Platform platform,
                 std::size_t line_limit);

    // Goes on to the next window; false after the last.
    bool next();
    const CrashWindow& window() const { return window_; }
    // What became durable between the last window and this one: to be copied into the image.
    using DurableLine = std::pair<LineNumber, LineBytes>;
    const std::vector<DurableLine>& newly_durable() const { return newly_durable_; }

    static std::uint64_t count(const Trace& trace, std::span<const std::byte> initial_image,
                               Platform platform);

  private:
    bool ends_window(const Event& event) const;
    void execute(const Event& event);
    void make_window();

    const Trace& trace_;
    std::span<const std::byte> initial_image_;
    PersistencyModel model_;
    std::size_t line_limit_;
    EventIndex next_event_ = 0;
    EventIndex window_begin_ = 0;
    bool stores_since_ = false, stricter_since_ = true;
    Moment moment_;
    CrashWindow window_;
    std::vector<DurableLine> newly_durable_;
    bool at_end_ = false;
};

}  // namespace holdfast::crash
