#include "mutants/lint.hpp"

#include <set>

namespace holdfast::crash {

std::vector<EventIndex> redundant_flushes(const Trace& trace) {
    std::vector<EventIndex> redundant;
    std::set<LineNumber> dirty;
    bool in_operation = false;
    for (std::size_t i = 0; i < trace.events.size(); ++i) {
        const Event& event = trace.events[i];
        if (event.kind == EventKind::begin) in_operation = true;
        if (event.kind == EventKind::acknowledge) in_operation = false;
        if (event.size == 0) continue;
        const LineNumber first = event.offset / kLineBytes;
        const LineNumber last = (event.offset + event.size - 1) / kLineBytes;
        if (event.kind == EventKind::store) {
            for (LineNumber line = first; line <= last; ++line) dirty.insert(line);
        } else if (event.kind == EventKind::flush || event.kind == EventKind::flush_now) {
            const auto begin = dirty.lower_bound(first), end = dirty.upper_bound(last);
            if (begin == end && in_operation) redundant.push_back(static_cast<EventIndex>(i));
            dirty.erase(begin, end);
        }
    }
    return redundant;
}

}  // namespace holdfast::crash
