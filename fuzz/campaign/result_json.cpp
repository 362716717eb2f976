#include "campaign/result_json.hpp"

#include <limits>

namespace holdfast::crash {
namespace {

using Json = nlohmann::json;

Json json_of(const TokenPart& part) {
    Json lines = Json::array();
    for (const auto& [line, candidate] : part.lines) lines.push_back({line, candidate});
    return {{"end", part.end_event}, {"visible", part.base_is_visible}, {"lines", lines}};
}

TokenPart token_part_of(const Json& json) {
    TokenPart part{.end_event = json["end"], .base_is_visible = json["visible"], .lines = {}};
    for (const Json& line : json["lines"]) part.lines[line[0]] = line[1];
    return part;
}

Json json_of(const RawViolation& violation) {
    Json lines = Json::array(), parts = Json::array();
    for (const auto& line : violation.lines) lines.push_back({line.line, line.lost, line.store});
    for (const TokenPart& part : violation.parts) parts.push_back(json_of(part));
    return {{"parts", parts},
            {"kind", static_cast<std::uint8_t>(violation.kind)},
            {"text", violation.text},
            {"acknowledged", violation.moment.acknowledged},
            {"in_flight", violation.moment.in_flight},
            {"lines", lines}};
}

RawViolation violation_of(const Json& json) {
    RawViolation violation;
    for (const Json& part : json["parts"]) violation.parts.push_back(token_part_of(part));
    violation.kind = static_cast<Violation::Kind>(json["kind"].get<std::uint8_t>());
    violation.text = json["text"];
    violation.moment = {json["acknowledged"], json["in_flight"]};
    for (const Json& line : json["lines"]) violation.lines.push_back({line[0], line[1], line[2]});
    return violation;
}

}  // namespace

Json to_json(const WindowResult& result) {
    const Coverage& coverage = result.coverage;
    Json violations = Json::array();
    for (const RawViolation& violation : result.violations)
        violations.push_back(json_of(violation));
    return {{"number", result.number},
            {"states", result.states},
            {"nested", result.nested_states},
            {"audited", result.audited},
            {"hash", result.verdict_hash},
            {"violations", violations},
            {"seconds",
             {result.choose_seconds, result.patch_seconds, result.check_seconds,
              result.restore_seconds}},
            {"coverage",
             {{"first", coverage.first_event},
              {"end", coverage.end_event},
              {"acknowledged", coverage.moment.acknowledged},
              {"in_flight", coverage.moment.in_flight},
              {"lines", coverage.lines},
              {"states", coverage.states},
              {"relevant", coverage.relevant},
              {"judged", coverage.judged},
              {"exhaustive", coverage.exhaustive},
              {"why_not", coverage.why_not}}}};
}

WindowResult window_result_of(const Json& json) {
    WindowResult result;
    result.number = json["number"];
    result.states = json["states"];
    result.nested_states = json["nested"];
    result.audited = json["audited"];
    result.verdict_hash = json["hash"];
    result.choose_seconds = json["seconds"][0];
    result.patch_seconds = json["seconds"][1];
    result.check_seconds = json["seconds"][2];
    result.restore_seconds = json["seconds"][3];
    for (const Json& violation : json["violations"])
        result.violations.push_back(violation_of(violation));
    const Json& coverage = json["coverage"];
    // A product beyond the range of double is null in JSON.
    const auto number = [](const Json& value) {
        return value.is_null() ? std::numeric_limits<double>::infinity() : value.get<double>();
    };
    result.coverage = {.first_event = coverage["first"],
                       .end_event = coverage["end"],
                       .moment = {coverage["acknowledged"], coverage["in_flight"]},
                       .lines = coverage["lines"],
                       .states = number(coverage["states"]),
                       .relevant = number(coverage["relevant"]),
                       .judged = coverage["judged"],
                       .exhaustive = coverage["exhaustive"],
                       .why_not = coverage["why_not"]};
    return result;
}

}  // namespace holdfast::crash
