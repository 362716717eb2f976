// crash trace: what a program does to its pool, event by event.
#include <holdfast/crash.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>

#include "arguments.hpp"
#include "commands.hpp"
#include "crash_subject.hpp"
#include "judge/traced_run.hpp"
#include "output.hpp"
#include "trace/symbols.hpp"

namespace holdfast::tool {
namespace {

struct TraceArguments {
    SubjectArguments subject;
    crash::Options options;
    std::string out, pmemcheck, pool, print;
};

// Of a trace, whatever made it.
Json summary_of(const std::string& name, const crash::Trace& trace) {
    std::set<std::uint32_t> processes;
    std::set<std::uint64_t> threads;
    for (const crash::Event& event : trace.events) {
        processes.insert(event.process);
        threads.insert(std::uint64_t{event.process} << 32 | event.thread);
    }
    const auto stores = static_cast<double>(trace.stores());
    return {{"workload", name},
            {"events", trace.events.size()},
            {"operations", trace.count(crash::EventKind::begin)},
            {"stores", trace.stores()},
            {"non_temporal", trace.count(crash::EventKind::store_non_temporal)},
            {"flushes",
             trace.count(crash::EventKind::flush) + trace.count(crash::EventKind::flush_now)},
            {"fences", trace.count(crash::EventKind::fence)},
            {"processes", processes.size()},
            {"threads", threads.size()},
            {"pool_bytes", trace.pool_bytes},
            {"microseconds_per_store",
             stores > 0 ? static_cast<double>(trace.tracing_ns) / 1000 / stores : 0},
            {"complete", trace.complete}};
}

void print_summary(const Json& summary) {
    print(
        "{}: {} events in {} operations: {} stores ({} of them non-temporal), {} flushes, {} "
        "fences; {:.1f} microseconds a store\n",
        summary["workload"].get<std::string>(), summary["events"].get<std::uint64_t>(),
        summary["operations"].get<std::uint64_t>(), summary["stores"].get<std::uint64_t>(),
        summary["non_temporal"].get<std::uint64_t>(), summary["flushes"].get<std::uint64_t>(),
        summary["fences"].get<std::uint64_t>(), summary["microseconds_per_store"].get<double>());
}

Outcome print_file(const Context& context, const std::string& path) {
    const auto trace = crash::Trace::load(path);
    if (!trace) return std::unexpected(trace.error());
    const crash::Symbols symbols(trace->modules);
    Json events = Json::array();
    for (std::size_t i = 0; i < trace->events.size(); ++i) {
        const crash::Event& event = trace->events[i];
        const std::string place = symbols.place(event);
        if (context.json)
            events.push_back({{"kind", to_string(event.kind)},
                              {"process", event.process},
                              {"thread", event.thread},
                              {"offset", event.offset},
                              {"size", event.size},
                              {"place", place}});
        else
            print("{:>6}  {:<48}{}{}\n", i, to_string(event), place.empty() ? "" : "  ", place);
    }
    Json summary = summary_of(path, *trace);
    if (context.json) {
        summary["list"] = std::move(events);
        print_json(summary);
    } else {
        print_summary(summary);
    }
    return ExitStatus::well;
}

Outcome record(const Context& context, const TraceArguments& arguments) {
    auto subject = make_subject(arguments.subject);
    if (!subject) return std::unexpected(subject.error());
    const auto run = crash::trace_run(**subject, arguments.options.seconds_per_run, std::nullopt);
    if (!run) return std::unexpected(run.error());
    const crash::Trace& trace = run->trace;
    const auto write = [](const std::string& path, const void* bytes,
                          std::size_t size) -> Result<void> {
        std::ofstream file(path, std::ios::binary | std::ios::trunc);
        file.write(static_cast<const char*>(bytes), static_cast<std::streamsize>(size));
        file.close();
        if (!file) return fail(ErrorCode::io, fmt::format("{} cannot be written", path));
        return {};
    };
    if (!arguments.pool.empty())
        if (auto written =
                write(arguments.pool, run->initial_image.data(), run->initial_image.size());
            !written)
            return std::unexpected(written.error());
    if (!arguments.out.empty())
        if (auto saved = trace.save(arguments.out); !saved) return std::unexpected(saved.error());
    if (!arguments.pmemcheck.empty()) {
        const std::string log = to_pmemcheck_log(
            trace, std::filesystem::absolute(arguments.pool.empty() ? "pool" : arguments.pool));
        if (auto written = write(arguments.pmemcheck, log.data(), log.size()); !written)
            return std::unexpected(written.error());
    }
    const Json summary = summary_of((*subject)->name(), trace);
    if (context.json)
        print_json(summary);
    else
        print_summary(summary);
    return ExitStatus::well;
}

Outcome trace(const Context& context, const TraceArguments& arguments) {
    return arguments.print.empty() ? record(context, arguments)
                                   : print_file(context, arguments.print);
}

}  // namespace

void add_crash_trace_command(CLI::App& crash, Context& context) {
    add_command<TraceArguments>(
        crash, context, "trace",
        "Record the stores, flushes and fences of a workload or of a program's run; or print "
        "such a trace.",
        [](CLI::App& command, TraceArguments& arguments) {
            declare_subject(command, arguments.subject);
            declare_programs(command, arguments.subject, false);
            declare_limits(command, arguments.options);
            command.add_option("--out", arguments.out, "write the trace to a file");
            command.add_option("--pmemcheck", arguments.pmemcheck,
                               "write it as a store log of pmemcheck, which pmreorder reads");
            command.add_option("--pool", arguments.pool,
                               "write the pool as it was before the run to a file; it is the one "
                               "that the store log names");
            command.add_option("--print", arguments.print,
                               "only print this trace: an event a line, and where in the program "
                               "it happened");
        },
        trace);
}

}  // namespace holdfast::tool
