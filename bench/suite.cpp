#include "suite.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <regex>
#include <stdexcept>

namespace holdfast::bench {
namespace {

std::string time_text(double nanoseconds) {
    if (nanoseconds < 1e3) return fmt::format("{:.3g} ns", nanoseconds);
    if (nanoseconds < 1e6) return fmt::format("{:.3g} us", nanoseconds / 1e3);
    if (nanoseconds < 1e9) return fmt::format("{:.3g} ms", nanoseconds / 1e6);
    return fmt::format("{:.3g} s", nanoseconds / 1e9);
}

std::string ratio_text(double ratio) {
    if (ratio < 0.1) return fmt::format("{:.4f}x", ratio);
    return ratio < 100 ? fmt::format("{:.2f}x", ratio) : fmt::format("{:.0f}x", ratio);
}

std::string goal_text(const Goal& goal, const std::string& unit) {
    switch (goal.kind) {
        case Goal::Kind::at_most:
            return fmt::format("<= {:g}{}", goal.bound, unit);
        case Goal::Kind::at_least:
            return fmt::format(">= {:g}{} less", goal.bound, unit);
        case Goal::Kind::below:
            return fmt::format("< {:g}{}", goal.bound, unit);
        case Goal::Kind::none:
        case Goal::Kind::factor:
            break;
    }
    return "";
}

const char* verdict(const Goal& goal, double value) {
    bool met = false;
    switch (goal.kind) {
        case Goal::Kind::at_most:
            met = value <= goal.bound;
            break;
        case Goal::Kind::at_least:
            met = value >= goal.bound;
            break;
        case Goal::Kind::below:
            met = value < goal.bound;
            break;
        case Goal::Kind::none:
        case Goal::Kind::factor:
            return "";
    }
    return met ? "met" : "MISSED";
}

}  // namespace

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const std::size_t middle = values.size() / 2;
    return values.size() % 2 != 0 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

void stop(const std::string& message) { throw std::runtime_error(message); }

benchmark::internal::Benchmark* Suite::add(const std::string& name, const Body& body) {
    names_.push_back(name);
    return benchmark::RegisterBenchmark(name.c_str(), body);
}

void Suite::figure(const std::string& what, double value, const std::string& unit, Goal goal) {
    lines_.push_back(
        {.comparison = {.what = what, .measured = {}, .peer = {}, .against = {}, .goal = goal},
         .value = value,
         .unit = unit});
}

bool Suite::selects_any(const std::string& filter) const {
    if (filter.empty() || filter == "all" || filter.starts_with('-')) return !names_.empty();
    const std::regex expression(filter, std::regex::extended);
    return std::any_of(names_.begin(), names_.end(), [&](const std::string& name) {
        return std::regex_search(name, expression);
    });
}

void Suite::compare(Comparison comparison) {
    if (rounds_.size() <= 1) lines_.push_back({.comparison = std::move(comparison)});
}

std::optional<double> Suite::over_rounds(
    const std::function<std::optional<double>(const Round&)>& of) const {
    std::vector<double> values;
    for (const Round& round : rounds_)
        if (const auto value = of(round)) values.push_back(*value);
    if (values.empty()) return std::nullopt;
    return median(values);
}

void Suite::print() const {
    bool any = false;
    const auto print_line = [&](const std::array<std::string, 7>& cells) {
        if (!any)
            fmt::print(
                "\n| {:<49} | {:>12} | {:>8} | {:<42} | {:>10} | {:<11} | {:<6} |\n"
                "|:{:-<49}-|-{:->12}:|-{:->8}:|:{:-<42}-|-{:->10}:|:{:-<11}-|:{:-<6}-|\n",
                "what", "holdfast", "peer", "the peer", "ratio", "goal", "", "", "", "", "", "", "",
                "");
        any = true;
        fmt::print("| {:<49} | {:>12} | {:>8} | {:<42} | {:>10} | {:<11} | {:<6} |\n", cells[0],
                   cells[1], cells[2], cells[3], cells[4], cells[5], cells[6]);
    };
    const auto time_of = [](const Round& round, const std::string& name) -> std::optional<double> {
        const auto found = round.find(name);
        if (found == round.end()) return std::nullopt;
        return median(found->second);
    };
    for (const Line& line : lines_) {
        const Comparison& comparison = line.comparison;
        const Goal& goal = comparison.goal;
        if (!line.unit.empty()) {
            print_line({comparison.what, fmt::format("{:.4g} {}", line.value, line.unit), "", "",
                        "", goal_text(goal, " " + line.unit), verdict(goal, line.value)});
            continue;
        }
        const auto measured =
            over_rounds([&](const Round& round) { return time_of(round, comparison.measured); });
        if (!measured) continue;
        if (comparison.peer.empty()) {
            print_line({comparison.what, time_text(*measured), "", "", "", goal_text(goal, " ns"),
                        verdict(goal, *measured)});
            continue;
        }
        const auto peer =
            over_rounds([&](const Round& round) { return time_of(round, comparison.peer); });
        if (!peer) continue;
        const bool factor = goal.kind == Goal::Kind::at_least || goal.kind == Goal::Kind::factor;
        const auto ratio = over_rounds([&](const Round& round) -> std::optional<double> {
            const auto ours = time_of(round, comparison.measured);
            const auto theirs = time_of(round, comparison.peer);
            if (!ours || !theirs) return std::nullopt;
            return factor ? *theirs / *ours : *ours / *theirs;
        });
        print_line({comparison.what, time_text(*measured), time_text(*peer), comparison.against,
                    ratio_text(*ratio) + (factor ? " less" : ""), goal_text(goal, "x"),
                    verdict(goal, *ratio)});
    }
}

}  // namespace holdfast::bench
