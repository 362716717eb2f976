// verify: the full check of a store; findings are the answer and the exit status.
#include <holdfast/store.hpp>

#include "arguments.hpp"
#include "commands.hpp"
#include "findings.hpp"
#include "output.hpp"

namespace holdfast::tool {
namespace {

struct VerifyArguments {
    std::string pool;
    unsigned threads = 0;
    bool list_writable_executable = false;
};

Json json_of(const VerifyReport& report, bool with_writable_executable) {
    Json findings = Json::array();
    for (const Finding& finding : report.findings) findings.push_back(tool::json_of(finding));
    Json json = {{"clean", report.clean()},
                 {"findings", findings},
                 {"tables", report.tables},
                 {"mapped_pages", report.mapped_pages},
                 {"frames",
                  {{"total", report.frames_total},
                   {"reachable", report.frames_reachable},
                   {"limbo", report.frames_limbo},
                   {"building", report.frames_building},
                   {"free", report.frames_free}}},
                 {"frames_by_kind", report.frames_by_kind}};
    if (with_writable_executable) {
        Json ranges = Json::array();
        for (const WritableExecutable& each : report.writable_executable)
            ranges.push_back({{"space", each.space}, {"range", tool::json_of(each.range)}});
        json["writable_executable"] = ranges;
    }
    return json;
}

void print_text(const VerifyReport& report) {
    for (const Finding& finding : report.findings) print("{}\n", text_of(finding));
    for (const WritableExecutable& each : report.writable_executable)
        print("writable and executable: space \"{}\" {:#x}-{:#x}\n", each.space,
              each.range.start.bits(), each.range.end().bits());
    print(
        "{}: {} tables, {} mapped pages; frames: {} reachable + {} limbo + {} building + {} free "
        "of {}\n",
        report.clean() ? "clean" : fmt::format("{} findings", report.findings.size()),
        report.tables, report.mapped_pages, report.frames_reachable, report.frames_limbo,
        report.frames_building, report.frames_free, report.frames_total);
}

Outcome verify(const Context& context, const VerifyArguments& arguments) {
    const auto report = [&] {
        CheckProgress progress;
        return Store::verify_file(
            arguments.pool,
            {.threads = arguments.threads,
             .list_writable_executable = arguments.list_writable_executable,
             .on_progress = [&](const VerifyProgress& now) { progress(now); }},
            context.emulation());
    }();
    if (!report) return std::unexpected(report.error());
    if (context.json)
        print_json(json_of(*report, arguments.list_writable_executable));
    else
        print_text(*report);
    return report->clean() ? ExitStatus::well : ExitStatus::findings;
}

}  // namespace

void add_verify_command(CLI::App& app, Context& context) {
    add_command<VerifyArguments>(
        app, context, "verify",
        "Check every table, entry and frame of a store, which may be read-only and is not changed "
        "by one byte; the exit status is 1 if anything is wrong.",
        [](CLI::App& command, VerifyArguments& arguments) {
            add_pool(command, arguments.pool);
            command.add_flag("--wx", arguments.list_writable_executable,
                             "list pages that are writable and executable; they are no finding");
            command.add_option("--threads", arguments.threads,
                               "how many share the work; as many as there are processors if not "
                               "given");
        },
        verify);
}

}  // namespace holdfast::tool
