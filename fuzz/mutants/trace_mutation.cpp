#include "mutants/trace_mutation.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace holdfast::crash {
namespace {

using Kind = TraceMutation::Kind;

constexpr std::array<const char*, kTraceMutationKinds> kNames = {
    "drop_flush",        "drop_fence",       "drop_store",        "shorten_flush",
    "shift_flush",       "delay_flush",      "store_after_flush", "swap_stores",
    "acknowledge_early", "drop_all_flushes", "cached_copy",       "duplicate_flush"};

std::uint64_t first_line(const Event& event) { return event.offset / kLineBytes; }
std::uint64_t last_line(const Event& event) {
    return (event.offset + std::max<std::uint32_t>(event.size, 1) - 1) / kLineBytes;
}

// The next event of the kind behind the place, within the operation; or the end.
std::size_t next_of(const Trace& trace, std::size_t place, EventKind kind) {
    while (++place < trace.events.size()) {
        if (trace.events[place].kind == kind) return place;
        if (trace.events[place].kind == EventKind::acknowledge) break;
    }
    return trace.events.size();
}

// Behind the fence of a flush, the next thing that is made durable: where the flush would be if it
// came only together with that.
std::size_t place_behind_next_durable(const Trace& trace, std::size_t flush) {
    const std::size_t fence = next_of(trace, flush, EventKind::fence);
    if (fence == trace.events.size()) return fence;
    const std::size_t next = std::min(next_of(trace, fence, EventKind::flush),
                                      next_of(trace, fence, EventKind::store_non_temporal));
    return next == trace.events.size() ? next : next_of(trace, next, EventKind::fence);
}

// The last store before a flush that lies wholly in what it flushes, with none to its lines
// between.
std::size_t store_before(const Trace& trace, std::size_t flush) {
    const Event& what = trace.events[flush];
    for (std::size_t at = flush; at-- > 0;) {
        const Event& event = trace.events[at];
        if (event.kind == EventKind::begin || event.kind == EventKind::fence) break;
        if (event.kind == EventKind::store && first_line(event) >= first_line(what) &&
            last_line(event) <= last_line(what))
            return at;
    }
    return trace.events.size();
}

bool can_be_planted(const Trace& trace, Kind kind, std::size_t at) {
    const Event& event = trace.events[at];
    const std::size_t none = trace.events.size();
    switch (kind) {
        case Kind::drop_flush:
        case Kind::shift_flush:
        case Kind::duplicate_flush:
            return event.kind == EventKind::flush;
        case Kind::shorten_flush:
            return event.kind == EventKind::flush && last_line(event) > first_line(event);
        case Kind::drop_fence:
        case Kind::acknowledge_early:
            return event.kind == EventKind::fence;
        case Kind::drop_store:
            return is_store(event.kind);
        case Kind::delay_flush:
            return event.kind == EventKind::flush && place_behind_next_durable(trace, at) != none;
        case Kind::store_after_flush:
            return event.kind == EventKind::flush && store_before(trace, at) != none;
        case Kind::swap_stores: {
            if (event.kind != EventKind::store || at + 1 == none) return false;
            const Event& next = trace.events[at + 1];
            const bool apart =
                event.offset + event.size <= next.offset || next.offset + next.size <= event.offset;
            return next.kind == EventKind::store && apart &&
                   first_line(event) == last_line(event) && first_line(next) == last_line(next) &&
                   first_line(event) == first_line(next);
        }
        case Kind::drop_all_flushes:
            return event.kind == EventKind::begin && event.offset == 0;
        case Kind::cached_copy:
            return event.kind == EventKind::store_non_temporal;
    }
    return false;
}

}  // namespace

const char* to_string(Kind kind) { return kNames[static_cast<std::size_t>(kind)]; }

std::string TraceMutation::to_string() const {
    return fmt::format("{}@{}", crash::to_string(kind), event);
}

std::vector<TraceMutation> places_for(const Trace& trace, Kind kind) {
    std::vector<TraceMutation> places;
    bool in_operation = false;
    for (std::size_t at = 0; at < trace.events.size(); ++at) {
        const EventKind event = trace.events[at].kind;
        if (event == EventKind::begin) in_operation = true;
        if (in_operation && can_be_planted(trace, kind, at))
            places.push_back({kind, static_cast<EventIndex>(at)});
        if (event == EventKind::acknowledge) in_operation = false;
    }
    return places;
}

Trace mutated(const Trace& trace, const TraceMutation& mutation) {
    Trace result = trace;
    std::vector<Event>& events = result.events;
    const std::size_t at = mutation.event;
    const auto place = [&](std::size_t index) {
        return events.begin() + static_cast<std::ptrdiff_t>(index);
    };
    // Moves an event backwards in the list, i.e. to a later moment.
    const auto move_to = [&](std::size_t from, std::size_t to) {
        std::rotate(place(from), place(from + 1), place(to));
    };
    switch (mutation.kind) {
        case Kind::drop_flush:
        case Kind::drop_fence:
        case Kind::drop_store:
            events.erase(place(at));
            break;
        case Kind::shorten_flush: {
            const std::uint64_t end = last_line(events[at]) * kLineBytes;
            events[at].size = static_cast<std::uint32_t>(end - events[at].offset);
            break;
        }
        case Kind::shift_flush:
            events[at].offset += (last_line(events[at]) - first_line(events[at]) + 1) * kLineBytes;
            break;
        case Kind::delay_flush:
            move_to(at, place_behind_next_durable(trace, at));
            break;
        case Kind::store_after_flush:
            move_to(store_before(trace, at), at + 1);
            break;
        case Kind::swap_stores:
            std::swap(events[at], events[at + 1]);
            break;
        case Kind::acknowledge_early: {
            const std::size_t acknowledged = next_of(trace, at, EventKind::acknowledge);
            std::rotate(place(at), place(acknowledged), place(acknowledged + 1));
            break;
        }
        case Kind::drop_all_flushes:
            std::erase_if(events, [](const Event& event) {
                return event.kind == EventKind::flush || event.kind == EventKind::flush_now;
            });
            break;
        case Kind::cached_copy:
            events[at].kind = EventKind::store;
            break;
        case Kind::duplicate_flush:
            events.insert(place(at + 1), events[at]);
            break;
    }
    return result;
}

}  // namespace holdfast::crash
