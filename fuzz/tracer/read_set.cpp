#include "tracer/read_set.hpp"

#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "tracer/boundary.hpp"
#include "tracer/instruction.hpp"
#include "tracer/stepping.hpp"

namespace holdfast::crash {
namespace {

constexpr std::uintptr_t kPage = 4096;

struct Line {
    LineNumber number = 0;
    std::uint64_t open = 0;  // the bytes that matter and were neither read nor overwritten yet
    bool read = false;
};
// Ascending; filled before the first fault, so that the handler allocates nothing.
std::vector<Line> lines;
bool is_active = false;

struct Step {
    std::array<std::byte*, 4> pages{};
    std::size_t page_count = 0;
};
Step step_now;

// The bytes [begin, end) of the pool, line by line.
template <typename Note>
void for_each_line(std::uint64_t begin, std::uint64_t end, const Note& note) {
    auto line =
        std::lower_bound(lines.begin(), lines.end(), begin / kLineBytes,
                         [](const Line& one, LineNumber number) { return one.number < number; });
    for (; line != lines.end() && line->number * kLineBytes < end; ++line) {
        const std::uint64_t start = line->number * kLineBytes;
        const std::uint64_t first = std::max(begin, start) - start;
        const std::uint64_t last = std::min(end, start + kLineBytes) - start;
        const std::uint64_t count = last - first;
        const std::uint64_t mask =
            (count == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1) << first;
        note(*line, mask);
    }
}

void note_read(std::uint64_t begin, std::uint64_t size) {
    for_each_line(begin, begin + size, [](Line& line, std::uint64_t mask) {
        if ((mask & line.open) == 0) return;
        line.read = true;
        line.open = 0;
    });
}

void note_written(std::uint64_t begin, std::uint64_t size) {
    for_each_line(begin, begin + size, [](Line& line, std::uint64_t mask) { line.open &= ~mask; });
}

bool open_page(const void* address) {
    std::byte* const page = start_of(address, kPage);
    if (step_now.page_count == step_now.pages.size()) return false;
    step_now.pages[step_now.page_count++] = page;
    return raw_mprotect(page, kPage, PROT_READ | PROT_WRITE) == 0;
}

// Whether more is to be learnt from accesses to the page.
bool is_interesting(const std::byte* page) {
    const PoolMapping* const mapping = WatchedPool::find(page);
    if (mapping == nullptr) return false;
    bool interesting = false;
    for_each_line(mapping->offset_of(page), mapping->offset_of(page) + kPage,
                  [&](Line& line, std::uint64_t) { interesting = interesting || line.open != 0; });
    return interesting;
}

void on_trap(int, siginfo_t*, void* context) {
    set_single_step(context, false);
    for (std::size_t i = 0; i < step_now.page_count; ++i)
        if (is_interesting(step_now.pages[i])) raw_mprotect(step_now.pages[i], kPage, PROT_NONE);
    step_now.page_count = 0;
}

// What libpmem's copies overwrite is known before they begin; they need not be stepped word by word
// for it. Of what they read from the pool, each access is looked at as any other.
class Copies final : public BoundaryObserver {
  public:
    bool flush(const void*, std::size_t, const void*) override { return true; }
    bool drain(const void*) override { return true; }
    bool copy(void* destination, const void* source, int, std::size_t size, unsigned,
              const void*) override {
        const PoolMapping* const to = WatchedPool::find(destination);
        const bool reads_pool = source != nullptr && WatchedPool::find(source) != nullptr;
        if (to != nullptr && !reads_pool) note_written(to->offset_of(destination), size);
        return false;
    }
};
Copies copies;
struct sigaction previous;

}  // namespace

void ReadSet::begin(const Lines& of) {
    lines.clear();
    for (const auto& [number, bytes] : of) lines.push_back({.number = number, .open = bytes});
    step_now.page_count = 0;
    struct sigaction action{};
    action.sa_sigaction = on_trap;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGTRAP, &action, &previous);
    is_active = true;
    observe_boundary(&copies);
}

std::vector<LineNumber> ReadSet::end() {
    observe_boundary(nullptr);
    is_active = false;
    sigaction(SIGTRAP, &previous, nullptr);
    std::vector<LineNumber> read;
    for (const Line& line : lines)
        if (line.read) read.push_back(line.number);
    return read;
}

bool ReadSet::active() { return is_active; }

bool ReadSet::step(const void* address, const PoolMapping& mapping, void* context) {
    const std::uint64_t offset = mapping.offset_of(address);
    const MemoryAccess access = decode(instruction_of(context));
    if (is_write(context) && access.stored_bytes != 0)
        note_written(offset, access.stored_bytes);
    else
        note_read(offset, access.loaded_bytes);
    if (!open_page(address)) return false;
    set_single_step(context, true);
    return true;
}

}  // namespace holdfast::crash
