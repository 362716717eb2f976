#include "tracer/page_watch.hpp"

#include <sys/mman.h>

#include <algorithm>

#include "pool/fault_dispatcher.hpp"
#include "tracer/read_set.hpp"
#include "tracer/stepping.hpp"
#include "tracer/watched_pool.hpp"

namespace holdfast::crash {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr int kTimesBeforeOpenedAhead = 3;

// By page number in the file; sized before the first fault, so that the handler allocates nothing.
struct PageNotes {
    std::vector<std::uint8_t> written, touched, closed, times_written;
};
PageNotes notes;
bool active = false;

bool on_fault(siginfo_t& info, void* context) {
    const PoolMapping* const mapping = WatchedPool::find(info.si_addr);
    if (!active || mapping == nullptr) return false;
    const std::uint64_t page = mapping->offset_of(info.si_addr) / kPage;
    if (notes.closed[page] != 0 && ReadSet::active()) {
        notes.touched[page] = 1;
        notes.written[page] = 1;  // it may stay open
        return ReadSet::step(info.si_addr, *mapping, context);
    }
    auto* const address = mapping->address + (page * kPage - mapping->file_offset);
    const bool writes = is_write(context);
    if (notes.closed[page] != 0) notes.touched[page] = 1;
    if (writes) notes.written[page] = 1;
    return raw_mprotect(address, kPage, writes ? PROT_READ | PROT_WRITE : PROT_READ) == 0;
}

void mapped(const PoolMapping& mapping) {
    raw_mprotect(mapping.address, mapping.size_bytes, PROT_READ);
    const std::uint64_t first = mapping.file_offset / kPage;
    const std::uint64_t end =
        std::min<std::uint64_t>(first + mapping.size_bytes / kPage, notes.written.size());
    // Runs of pages of one kind, so that there is one call for each.
    const auto kind_of = [](std::uint64_t page) {
        if (notes.closed[page] != 0) return PROT_NONE;
        return notes.times_written[page] >= kTimesBeforeOpenedAhead ? PROT_READ | PROT_WRITE
                                                                    : PROT_READ;
    };
    for (std::uint64_t page = first; page < end;) {
        const int kind = kind_of(page);
        std::uint64_t run_end = page + 1;
        while (run_end < end && kind_of(run_end) == kind) ++run_end;
        if (kind != PROT_READ)
            raw_mprotect(mapping.address + (page - first) * kPage, (run_end - page) * kPage, kind);
        if (kind == (PROT_READ | PROT_WRITE))
            std::fill(notes.written.begin() + static_cast<std::ptrdiff_t>(page),
                      notes.written.begin() + static_cast<std::ptrdiff_t>(run_end),
                      std::uint8_t{1});
        page = run_end;
    }
}

std::vector<std::uint64_t> numbers_of(const std::vector<std::uint8_t>& marks) {
    std::vector<std::uint64_t> numbers;
    for (std::uint64_t page = 0; page < marks.size(); ++page)
        if (marks[page] != 0) numbers.push_back(page);
    return numbers;
}

}  // namespace

Result<void> PageWatch::start(const std::string& path, std::uint64_t pool_bytes) {
    const std::uint64_t pages = (pool_bytes + kPage - 1) / kPage;
    for (auto* each : {&notes.written, &notes.touched, &notes.closed, &notes.times_written})
        each->assign(pages, 0);
    active = true;
    pool::FaultDispatcher::subscribe(on_fault);
    auto watched = WatchedPool::watch(path, mapped);
    if (!watched) stop();
    return watched;
}

void PageWatch::stop() {
    if (!active) return;
    active = false;
    WatchedPool::unwatch();
    pool::FaultDispatcher::unsubscribe(on_fault);
}

void PageWatch::begin_run(const std::vector<std::uint64_t>& closed_pages) {
    for (std::uint64_t page = 0; page < notes.written.size(); ++page) {
        const bool opened_ahead = notes.times_written[page] >= kTimesBeforeOpenedAhead;
        if (notes.written[page] != 0 && !opened_ahead) ++notes.times_written[page];
    }
    for (auto* each : {&notes.written, &notes.touched, &notes.closed})
        std::fill(each->begin(), each->end(), std::uint8_t{0});
    for (const std::uint64_t page : closed_pages)
        if (page < notes.closed.size()) notes.closed[page] = 1;
}

std::vector<std::uint64_t> PageWatch::written() { return numbers_of(notes.written); }
std::vector<std::uint64_t> PageWatch::touched() { return numbers_of(notes.touched); }

}  // namespace holdfast::crash
