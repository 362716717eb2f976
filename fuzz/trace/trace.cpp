#include "trace/trace.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>

namespace holdfast::crash {
namespace {

constexpr std::uint64_t padded(std::uint64_t size) { return (size + 7) / 8 * 8; }

constexpr std::array kKindNames = {"?",     "store", "store_nt",    "flush", "flush_now",
                                   "fence", "begin", "acknowledge", "module"};

class Reader {
  public:
    explicit Reader(std::span<const std::byte> bytes) : left_(bytes) {}
    bool take(void* to, std::size_t size) {
        if (size > left_.size()) return false;
        if (size == 0) return true;  // an event without bytes has nowhere to put them
        std::memcpy(to, left_.data(), size);
        left_ = left_.subspan(size);
        return true;
    }
    bool skip(std::size_t size) {
        if (size > left_.size()) return false;
        left_ = left_.subspan(size);
        return true;
    }
    std::size_t left() const { return left_.size(); }

  private:
    std::span<const std::byte> left_;
};

void append(std::vector<std::byte>& out, const void* bytes, std::size_t size) {
    const auto* const from = static_cast<const std::byte*>(bytes);
    out.insert(out.end(), from, from + size);
}

void append_record(std::vector<std::byte>& out, const EventRecord& record, const void* data,
                   std::span<const std::uint64_t> stack) {
    append(out, &record, sizeof record);
    if (has_data(record.kind)) {
        append(out, data, record.size);
        out.resize(out.size() + padded(record.size) - record.size);
    }
    append(out, stack.data(), stack.size_bytes());
}

}  // namespace

const char* to_string(EventKind kind) {
    const auto index = static_cast<std::size_t>(kind);
    return index < kKindNames.size() ? kKindNames[index] : kKindNames[0];
}

std::string to_string(const Event& event) {
    switch (event.kind) {
        case EventKind::fence:
            return "fence";
        case EventKind::begin:
        case EventKind::acknowledge:
            return fmt::format("{} operation {}", to_string(event.kind), event.offset);
        default:
            break;
    }
    std::string text =
        fmt::format("{} {:#x} {} bytes", to_string(event.kind), event.offset, event.size);
    if (!event.bytes.empty() && event.bytes.size() <= 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, event.bytes.data(), event.bytes.size());
        text += fmt::format(" {:#x}", word);
    }
    return text;
}

std::uint64_t Trace::count(EventKind kind) const {
    return static_cast<std::uint64_t>(std::count_if(
        events.begin(), events.end(), [&](const Event& event) { return event.kind == kind; }));
}

std::uint64_t Trace::stores() const {
    return count(EventKind::store) + count(EventKind::store_non_temporal);
}

Result<Trace> Trace::parse(std::span<const std::byte> bytes, const std::string& name) {
    const auto broken = [&](const char* what) {
        return fail(ErrorCode::invalid_argument, fmt::format("{} is not a trace: {}", name, what));
    };
    Reader reader(bytes);
    TraceHead head, expected;
    if (!reader.take(&head, sizeof head) ||
        std::memcmp(head.magic, expected.magic, sizeof head.magic) != 0)
        return broken("it does not begin as one");
    if (head.version != kTraceVersion)
        return fail(ErrorCode::unsupported,
                    fmt::format("{} is a trace of version {}, this is version {}: trace again with "
                                "this build",
                                name, head.version, kTraceVersion));
    if (head.events_bytes > reader.left()) return broken("it is cut short");
    Reader events(bytes.subspan(sizeof head, head.events_bytes));
    Trace trace;
    trace.pool_bytes = head.pool_bytes;
    trace.tracing_ns = head.tracing_ns;
    trace.complete = head.complete == 1;
    trace.full = head.complete == 2;
    while (events.left() != 0) {
        EventRecord record;
        if (!events.take(&record, sizeof record)) return broken("its last event is cut short");
        const bool known = record.kind >= EventKind::store && record.kind <= EventKind::module;
        if (!known) return broken("it holds an event of an unknown kind");
        const bool in_pool = is_store(record.kind) || record.kind == EventKind::flush ||
                             record.kind == EventKind::flush_now;
        if (in_pool &&
            (record.offset > head.pool_bytes || record.size > head.pool_bytes - record.offset))
            return broken("it holds an event outside the pool");
        Event event{.kind = record.kind,
                    .thread = record.thread,
                    .process = record.process,
                    .offset = record.offset,
                    .size = record.size,
                    .bytes = {},
                    .stack = {}};
        if (has_data(record.kind)) {
            if (record.size > events.left()) return broken("its last event is cut short");
            event.bytes.resize(record.size);
            if (!events.take(event.bytes.data(), record.size) ||
                !events.skip(padded(record.size) - record.size))
                return broken("its last event is cut short");
        }
        if (record.stack_depth > events.left() / sizeof(std::uint64_t))
            return broken("its last event is cut short");
        event.stack.resize(record.stack_depth);
        events.take(event.stack.data(), event.stack.size() * sizeof(std::uint64_t));
        if (record.kind == EventKind::module)
            trace.modules.push_back(
                {record.offset,
                 std::string(reinterpret_cast<const char*>(event.bytes.data()), record.size),
                 record.process});
        else
            trace.events.push_back(std::move(event));
    }
    return trace;
}

Result<Trace> Trace::load(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file)
        return fail(ErrorCode::io, fmt::format("cannot read {}: {}", path, std::strerror(errno)));
    // A file that a tracer was to write is as long as its trace may become.
    std::vector<char> bytes(sizeof(TraceHead));
    file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    bytes.resize(static_cast<std::size_t>(file.gcount()));
    TraceHead head;
    if (bytes.size() == sizeof head) {
        std::memcpy(&head, bytes.data(), sizeof head);
        for (std::array<char, 65536> part;
             file && bytes.size() - sizeof head < head.events_bytes;) {
            const std::uint64_t wanted = head.events_bytes - (bytes.size() - sizeof head);
            file.read(part.data(),
                      static_cast<std::streamsize>(std::min<std::uint64_t>(part.size(), wanted)));
            bytes.insert(bytes.end(), part.data(), part.data() + file.gcount());
        }
    }
    return parse(std::as_bytes(std::span(bytes)), path);
}

std::vector<std::byte> Trace::serialize() const {
    std::vector<std::byte> out(sizeof(TraceHead));
    std::uint64_t processes = 0;
    for (const Event& event : events) {
        const EventRecord record{.kind = event.kind,
                                 .thread = event.thread,
                                 .size = event.size,
                                 .offset = event.offset,
                                 .stack_depth = static_cast<std::uint32_t>(event.stack.size()),
                                 .process = event.process};
        processes = std::max<std::uint64_t>(processes, event.process + 1);
        append_record(out, record, event.bytes.data(), event.stack);
    }
    for (const Module& module : modules) {
        const EventRecord record{.kind = EventKind::module,
                                 .size = static_cast<std::uint32_t>(module.path.size()),
                                 .offset = module.loaded_at,
                                 .process = module.process};
        append_record(out, record, module.path.data(), {});
    }
    TraceHead head;
    head.complete = full ? 2 : complete ? 1 : 0;
    head.events_bytes = out.size() - sizeof head;
    head.pool_bytes = pool_bytes;
    head.tracing_ns = tracing_ns;
    head.processes = processes;
    head.acknowledged = count(EventKind::acknowledge);
    std::memcpy(out.data(), &head, sizeof head);
    return out;
}

Result<void> Trace::save(const std::string& path) const {
    const std::vector<std::byte> bytes = serialize();
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    file.close();
    if (!file)
        return fail(ErrorCode::io, fmt::format("cannot write {}: {}", path, std::strerror(errno)));
    return {};
}

}  // namespace holdfast::crash
