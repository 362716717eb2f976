#include "explore/crash_windows.hpp"

#include <algorithm>
#include <numeric>

namespace holdfast::crash {

double CrashWindow::new_states() const {
    std::vector<std::size_t> all(lines.size());
    std::iota(all.begin(), all.end(), std::size_t{0});
    return new_states(all);
}

double CrashWindow::new_states(const std::vector<std::size_t>& relevant) const {
    double states = 1, old = 1;
    for (const std::size_t index : relevant) {
        const PendingLine& line = lines[index];
        states *= static_cast<double>(line.candidates.size());
        old *= static_cast<double>(std::count(line.is_new.begin(), line.is_new.end(), false));
    }
    return all_new ? states : states - old;
}

std::vector<std::uint16_t> CrashWindow::in_program_order(EventIndex before) const {
    std::vector<std::uint16_t> choice(lines.size());
    for (std::size_t i = 0; i < lines.size(); ++i)
        for (const auto& [event, candidate] : lines[i].history)
            if (event < before) choice[i] = candidate;
    return choice;
}

CrashWindows::CrashWindows(const Trace& trace, std::span<const std::byte> initial_image,
                           Platform platform, std::size_t line_limit)
    : trace_(trace),
      initial_image_(initial_image),
      model_(platform == Platform::adr ? PersistenceDomain::adr : PersistenceDomain::eadr),
      line_limit_(line_limit) {}

std::uint64_t CrashWindows::count(const Trace& trace, std::span<const std::byte> initial_image,
                                  Platform platform) {
    CrashWindows windows(trace, initial_image, platform, 2);
    std::uint64_t number = 0;
    while (windows.next()) ++number;
    return number;
}

bool CrashWindows::ends_window(const Event& event) const {
    switch (event.kind) {
        case EventKind::fence:
            return stores_since_ && model_.fence_matters(event.thread);
        case EventKind::flush_now:
            return stores_since_;
        case EventKind::begin:
            // The judge becomes laxer: what came before must be judged by itself.
            return stores_since_ || stricter_since_;
        case EventKind::acknowledge:
            return stores_since_;
        case EventKind::store:
            // With eADR every store is durable at once: each is a window of its own.
            return stores_since_ && trace_.events[next_event_].thread == event.thread &&
                   model_.domain() == PersistenceDomain::eadr;
        default:
            return false;
    }
}

void CrashWindows::execute(const Event& event) {
    const EventIndex index = next_event_;
    switch (event.kind) {
        case EventKind::store:
        case EventKind::store_non_temporal:
            model_.store(event.thread, event.offset, event.bytes,
                         event.kind == EventKind::store_non_temporal, index, initial_image_);
            stores_since_ = true;
            break;
        case EventKind::flush:
            model_.flush(event.thread, event.offset, event.size);
            break;
        case EventKind::flush_now:
            model_.flush_now(event.thread, event.offset, event.size);
            break;
        case EventKind::fence:
            model_.fence(event.thread);
            break;
        case EventKind::begin:
            moment_ = {event.offset, true};
            break;
        case EventKind::acknowledge:
            moment_ = {event.offset + 1, false};
            stricter_since_ = true;
            break;
        case EventKind::module:
            break;
    }
}

void CrashWindows::make_window() {
    newly_durable_.clear();
    for (const LineNumber line : model_.take_newly_durable())
        newly_durable_.emplace_back(line, model_.durable(line));
    window_.first_event = window_begin_;
    window_.end_event = next_event_;
    window_.moment = moment_;
    // With eADR a store is durable without ever having been one of several candidates.
    window_.all_new = stricter_since_ || model_.domain() == PersistenceDomain::eadr;
    window_.lines.clear();
    for (const LineNumber number : model_.pending()) {
        PendingLine line{.line = number, .candidates = {}, .is_new = {}, .history = {}};
        line.candidates = model_.candidates(number, line_limit_, &line.complete);
        for (const auto& [event, bytes] : model_.history(number))
            for (std::size_t i = 0; i < line.candidates.size(); ++i)
                if (line.candidates[i].bytes == bytes)
                    line.history.emplace_back(event, static_cast<std::uint16_t>(i));
        for (const Candidate& candidate : line.candidates)
            line.is_new.push_back(!candidate.early.empty() &&
                                  candidate.early.back() >= window_begin_);
        window_.lines.push_back(std::move(line));
    }
    stores_since_ = false;
    stricter_since_ = false;
    window_begin_ = next_event_;
}

bool CrashWindows::next() {
    if (at_end_) return false;
    const bool first = window_begin_ == 0 && next_event_ == 0;
    if (!first) ++window_.number;
    while (next_event_ < trace_.events.size()) {
        const Event& event = trace_.events[next_event_];
        if (ends_window(event)) {
            make_window();
            return true;
        }
        execute(event);
        ++next_event_;
    }
    at_end_ = true;
    if (!stores_since_ && !stricter_since_) return false;
    make_window();
    return true;
}

}  // namespace holdfast::crash
