// Chapter 1: a running program moves in.
#include <fmt/format.h>
#include <unistd.h>
#include <holdfast/image.hpp>

#include "demo.hpp"
#include "demo_child.hpp"
#include "demo_workload.hpp"
#include "maps_line.hpp"
#include "output.hpp"
#include "quantity.hpp"

namespace holdfast::tool::demo {
namespace {

constexpr std::size_t kLinesShown = 6;

// A program that every Debian has. It says "ready" once it holds its data, waits for a line, and
// then answers from that data.
std::vector<std::string> some_program() {
    if (access("/usr/bin/perl", X_OK) == 0)
        return {"perl", "-e",
                "$| = 1; my %h = map { $_ => \"record $_ \" x 10 } 1..60000; print \"ready\\n\";"
                "<STDIN>; print scalar(keys %h), \" records, the last begins: \", "
                "substr($h{60000}, 0, 12), \"\\n\";"};
    return {"bash", "-c",
            "for ((i = 1; i <= 60000; i++)); do data[i]=\"record $i\"; done; echo ready;"
            "read -r; echo \"${#data[@]} records, the last begins: ${data[60000]}\""};
}

void print_maps(const std::vector<Mapping>& mappings) {
    for (std::size_t i = 0; i < std::min(mappings.size(), kLinesShown); ++i)
        print("   {}\n", maps_line(mappings[i]));
    if (mappings.size() > kLinesShown) print("   ... and {} more\n", mappings.size() - kLinesShown);
}

Result<void> no_mapping_in_area(const std::vector<Mapping>& mappings) {
    for (const Mapping& mapping : mappings)
        if (mapping.range.start < Workload::kArea.end() &&
            Workload::kArea.start < mapping.range.end())
            return fail(ErrorCode::unsupported,
                        fmt::format("this system maps {:#x}, which the demo wants for itself",
                                    mapping.range.start.bits()));
    return {};
}

// Where ptrace(2) is forbidden, as in some containers, the program's file does.
Result<void> import_either(Store& store, Child& child, const std::string& name) {
    auto report = import_process(store, kProgramSpace, child.pid());
    if (!report && report.error().code == ErrorCode::permission_denied) {
        print(
            "   this machine does not let us look into processes ({});\n"
            "   the program's file is imported instead\n",
            report.error().message);
        report = import_elf(store, kProgramSpace, fmt::format("/proc/{}/exe", child.pid()));
    } else if (report) {
        print("   {}, process {}, was stopped for {} and goes on\n", name, child.pid(),
              format_duration(report->seconds));
    }
    if (!report) return std::unexpected(report.error());
    print("   {} mapped, {} stored (pages of zeros are not)\n\n", format_size(report->mapped_bytes),
          format_size(report->stored_bytes));
    return {};
}

}  // namespace

Result<std::uint64_t> import_running_program(const std::string& pool) {
    print("\n1. A running program moves in\n");
    const std::vector<std::string> program = some_program();
    auto child = Child::start(program);
    if (!child) return std::unexpected(child.error());
    if (auto ready = child->read_line(); !ready) return std::unexpected(ready.error());

    auto store = Store::open(pool, {.emulation = PmemEmulation::on});
    if (!store) return std::unexpected(store.error());
    if (auto done = import_either(*store, *child, program.front()); !done)
        return std::unexpected(done.error());
    const auto space = store->open_space(kProgramSpace);
    if (!space) return std::unexpected(space.error());
    const auto mappings = space->maps();
    if (!mappings) return std::unexpected(mappings.error());
    print_maps(*mappings);
    if (auto free = no_mapping_in_area(*mappings); !free) return std::unexpected(free.error());

    child->write_line("");
    const auto answer = child->read_line();
    if (!answer) return std::unexpected(answer.error());
    print("   the program, asked afterwards: {}\n", *answer);
    return fingerprint(*space);
}

}  // namespace holdfast::tool::demo
