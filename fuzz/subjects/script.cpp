#include "subjects/script.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <sstream>

namespace holdfast::crash {
namespace {

using oracle::Call;
using Verb = Call::Verb;

std::optional<std::uint64_t> number_of(std::string text) {
    std::uint64_t unit = 1;
    for (const auto& [suffix, bytes] :
         {std::pair{"KiB", std::uint64_t{1} << 10}, std::pair{"MiB", std::uint64_t{1} << 20},
          std::pair{"GiB", std::uint64_t{1} << 30}})
        if (text.ends_with(suffix)) {
            unit = bytes;
            text.resize(text.size() - 3);
        }
    const bool hexadecimal = text.starts_with("0x");
    const char* const begin = text.data() + (hexadecimal ? 2 : 0);
    const char* const end = text.data() + text.size();
    std::uint64_t value = 0;
    const auto [stop, error] = std::from_chars(begin, end, value, hexadecimal ? 16 : 10);
    if (error != std::errc() || stop != end || begin == end) return std::nullopt;
    return value * unit;
}

std::optional<Protection> protection_of(const std::string& text) {
    std::uint8_t bits = 0;
    for (const char letter : text) {
        if (letter == 'r')
            bits |= 1;
        else if (letter == 'w')
            bits |= 2;
        else if (letter == 'x')
            bits |= 4;
        else if (letter == 'u')
            bits |= 8;
        else
            return std::nullopt;
    }
    return Protection(bits);
}

// The words of a line, taken one by one; remembers what was wrong first.
class Words {
  public:
    explicit Words(const std::string& line) : stream_(line) {}
    std::string word(const char* what) {
        std::string text;
        if (!(stream_ >> text)) complain(fmt::format("{} is missing", what));
        return text;
    }
    std::optional<std::string> optional_word() {
        std::string text;
        return stream_ >> text ? std::optional(text) : std::nullopt;
    }
    std::uint64_t number(const char* what) {
        const std::string text = word(what);
        const auto value = number_of(text);
        if (!value) complain(fmt::format("\"{}\" is no {}", text, what));
        return value.value_or(0);
    }
    Range range() {
        const VirtAddr address(number("address"));
        return {address, number("number of pages") * kPageSize};
    }
    Protection protection() {
        const std::string text = word("protection");
        const auto value = protection_of(text);
        if (!value) complain(fmt::format("\"{}\" is no protection; rw is one", text));
        return value.value_or(Protection(1));
    }
    void complain(std::string what) {
        if (complaint_.empty()) complaint_ = std::move(what);
    }
    const std::string& complaint() {
        if (const auto more = optional_word())
            complain(fmt::format("\"{}\" is a word too many", *more));
        return complaint_;
    }

  private:
    std::istringstream stream_;
    std::string complaint_;
};

using NamedVerb = std::pair<std::string_view, Verb>;
// Calls with a range and a protection, and with a range alone.
constexpr NamedVerb kMappings[] = {{"map", Verb::map},         {"lazy", Verb::map_lazy},
                                   {"huge", Verb::map_huge},   {"lazy_huge", Verb::lazy_huge},
                                   {"stack", Verb::map_stack}, {"protect", Verb::protect}};
constexpr NamedVerb kRanges[] = {{"unmap", Verb::unmap},
                                 {"handle", Verb::mark},
                                 {"guard", Verb::map_guard},
                                 {"promote", Verb::promote},
                                 {"sync", Verb::sync}};
// Calls of the store with one number.
constexpr NamedVerb kOfStore[] = {{"grow", Verb::grow},
                                  {"release", Verb::release_limbo},
                                  {"volatile", Verb::add_volatile},
                                  {"device", Verb::add_device},
                                  {"detach", Verb::detach},
                                  {"attach", Verb::attach},
                                  {"move", Verb::move}};

constexpr std::array kPolicies = {OvercommitPolicy::heuristic, OvercommitPolicy::always,
                                  OvercommitPolicy::never};

std::optional<Call> call_of(const std::string& verb, Words& words) {
    Call call;
    for (const auto& [name, of_store] : kOfStore) {
        if (verb != name) continue;
        call.verb = of_store;
        call.word = words.number("number");
        return call;
    }
    if (verb == "finish_moves") {
        call.verb = Verb::finish_moves;
        return call;
    }
    if (verb == "overcommit") {
        call.verb = Verb::overcommit;
        const std::string name = words.word("policy");
        Overcommit setting;
        const auto known = std::find_if(kPolicies.begin(), kPolicies.end(),
                                        [&](auto each) { return name == to_string(each); });
        if (known != kPolicies.end())
            setting.policy = *known;
        else
            words.complain(fmt::format("\"{}\" is no policy; never is one", name));
        setting.ratio_percent = static_cast<std::uint32_t>(words.number("percent"));
        call.word = oracle::word_of(setting);
        return call;
    }
    call.space = words.word("space");
    if (verb == "create" || verb == "supervisor") {
        call.verb = verb == "create" ? Verb::create : Verb::create_supervisor;
        if (const auto levels = words.optional_word()) {
            if (*levels != "3" && *levels != "4" && *levels != "5")
                words.complain("a space has 3, 4 or 5 levels");
            call.levels = static_cast<Levels>((*levels)[0] - '0');
            if (verb == "create") call.other = words.optional_word().value_or("");
            if (!call.other.empty()) call.verb = Verb::create_sharing;
        }
    } else if (verb == "rename" || verb == "fork" || verb == "snapshot" || verb == "rollback") {
        call.verb = verb == "rename"     ? Verb::rename
                    : verb == "fork"     ? Verb::fork
                    : verb == "snapshot" ? Verb::snapshot
                                         : Verb::rollback;
        call.other = words.word(verb == "rollback" ? "snapshot" : "new name");
    } else if (verb == "remove") {
        call.verb = Verb::remove;
    } else if (const auto* mapping = std::ranges::find(kMappings, verb, &NamedVerb::first);
               mapping != std::end(kMappings)) {
        call.verb = mapping->second;
        call.range = words.range();
        call.protection = words.protection();
        if (verb == "map") call.name = words.optional_word().value_or("");
    } else if (verb == "share") {
        call.verb = Verb::map_shared;
        call.range = words.range();
        call.protection = words.protection();
        call.other = words.word("source space");
        call.source = words.range();
    } else if (verb == "mapfile") {
        call.range = words.range();
        call.protection = words.protection();
        call.name = words.word("file");
        call.word = words.number("page");
        const auto shared = words.optional_word();
        if (shared && *shared != "shared") words.complain("\"shared\", or nothing");
        call.verb = shared ? Verb::map_file_shared : Verb::map_file;
    } else if (verb == "mapdevice") {
        call.verb = Verb::map_device;
        call.range = words.range();
        call.protection = words.protection();
        call.word = words.number("page");
    } else if (verb == "fault") {
        call.verb = Verb::fault;
        call.range = {VirtAddr(words.number("address")), 8};
    } else if (const auto* ranged = std::ranges::find(kRanges, verb, &NamedVerb::first);
               ranged != std::end(kRanges)) {
        call.verb = ranged->second;
        call.range = words.range();
    } else if (verb == "evict") {
        call.verb = Verb::evict;
        call.word = words.number("number of pages");
    } else if (verb == "prefer") {
        call.verb = Verb::prefer;
        call.word = words.number("region");
    } else if (verb == "write" || verb == "write_unpersisted") {
        call.verb = verb == "write" ? Verb::write : Verb::write_unpersisted;
        call.range = {VirtAddr(words.number("address")), 8};
        call.word = words.number("word");
    } else {
        return std::nullopt;
    }
    return call;
}

}  // namespace

Result<Script> Script::parse(const std::string& name, const std::string& text) {
    Script script;
    script.name = name;
    std::vector<Step> steps;
    std::optional<Step> transaction;
    bool divided = false;
    std::istringstream lines(text);
    std::string line;
    for (unsigned number = 1; std::getline(lines, line); ++number) {
        const auto wrong = [&](const std::string& what) {
            return fail(ErrorCode::invalid_argument,
                        fmt::format("workload {}, line {}: {}", name, number, what));
        };
        line.resize(std::min(line.size(), line.find('#')));
        Words words(line);
        const auto verb = words.optional_word();
        if (!verb) continue;
        if (*verb == "pool") {
            script.pool_bytes = words.number("size");
        } else if (*verb == "lanes") {
            script.lanes = words.number("number of lanes");
        } else if (*verb == "frames") {
            script.frames_bytes = words.number("size");
        } else if (*verb == "file") {
            const std::string file = words.word("name");
            script.files.emplace_back(file, words.number("number of pages"));
        } else if (*verb == "operations") {
            if (divided) return wrong("there is an `operations` above already");
            divided = true;
            script.set_up = std::move(steps);
            steps.clear();
        } else if (*verb == "reopen") {
            steps.emplace_back();
        } else if (*verb == "repair") {
            steps.push_back({.calls = {}, .damage = {}, .repairs = true});
        } else if (*verb == "damage") {
            const std::string kind = words.word("kind of damage");
            PlantedDamage damage;
            if (const auto known = PlantedDamage::parse(kind))
                damage.kind = *known;
            else
                return wrong(fmt::format("there is no damage \"{}\"", kind));
            if (damage.has_space()) damage.space = words.word("space");
            if (damage.has_address()) damage.address = VirtAddr(words.number("address"));
            steps.push_back({.calls = {}, .damage = damage, .repairs = false});
        } else if (*verb == "begin") {
            if (transaction) return wrong("the transaction above has no `commit`");
            transaction.emplace();
        } else if (*verb == "commit") {
            if (!transaction || transaction->calls.empty()) return wrong("nothing to commit");
            steps.push_back(std::move(*transaction));
            transaction.reset();
        } else if (*verb == "full" && transaction) {
            if (transaction->calls.size() < 2) return wrong("no transaction of two calls or more");
            transaction->finds_full = true;
            steps.push_back(std::move(*transaction));
            transaction.reset();
        } else {
            const bool finds_full = *verb == "full", repeats = *verb == "repeat";
            const std::uint64_t times = repeats ? words.number("number of calls") : 1;
            const std::uint64_t stride = repeats ? words.number("stride") : 0;
            const std::string call_verb = finds_full || repeats ? words.word("call") : *verb;
            auto call = call_of(call_verb, words);
            if (!call) return wrong(fmt::format("there is no call \"{}\"", call_verb));
            for (std::uint64_t i = 0; i < times && words.complaint().empty(); ++i) {
                if (transaction)
                    transaction->calls.push_back(*call);
                else
                    steps.push_back({.calls = {*call}, .finds_full = finds_full});
                call->range.start = call->range.start + stride;
            }
        }
        if (!words.complaint().empty()) return wrong(words.complaint());
    }
    if (transaction)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("workload {}: a transaction has no `commit`", name));
    script.operations = std::move(steps);
    script.crashes_creation = !divided;
    if (script.operations.empty() && divided)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("workload {} has no operations", name));
    return script;
}

namespace {

std::string text_of(const Call& call) {
    const auto range = [](const Range& of) {
        return fmt::format("{:#x} {}", of.start.bits(), of.pages());
    };
    std::string protection;
    if (call.protection.readable()) protection += 'r';
    if (call.protection.writable()) protection += 'w';
    if (call.protection.executable()) protection += 'x';
    if (call.protection.user()) protection += 'u';
    switch (call.verb) {
        case Verb::create:
            return fmt::format("create {} {}", call.space, static_cast<int>(call.levels));
        case Verb::create_supervisor:
            return fmt::format("supervisor {} {}", call.space, static_cast<int>(call.levels));
        case Verb::create_sharing:
            return fmt::format("create {} {} {}", call.space, static_cast<int>(call.levels),
                               call.other);
        case Verb::fork:
            return fmt::format("fork {} {}", call.space, call.other);
        case Verb::snapshot:
            return fmt::format("snapshot {} {}", call.space, call.other);
        case Verb::rollback:
            return fmt::format("rollback {} {}", call.space, call.other);
        case Verb::rename:
            return fmt::format("rename {} {}", call.space, call.other);
        case Verb::remove:
            return fmt::format("remove {}", call.space);
        case Verb::map:
            return fmt::format("map {} {} {}{}{}", call.space, range(call.range), protection,
                               call.name.empty() ? "" : " ", call.name);
        case Verb::map_lazy:
        case Verb::map_huge:
        case Verb::lazy_huge:
        case Verb::map_stack:
        case Verb::protect:
            return fmt::format("{} {} {} {}",
                               std::ranges::find(kMappings, call.verb, &NamedVerb::second)->first,
                               call.space, range(call.range), protection);
        case Verb::map_shared:
            return fmt::format("share {} {} {} {} {}", call.space, range(call.range), protection,
                               call.other, range(call.source));
        case Verb::map_guard:
        case Verb::unmap:
        case Verb::promote:
        case Verb::sync:
        case Verb::mark:
            return fmt::format("{} {} {}",
                               std::ranges::find(kRanges, call.verb, &NamedVerb::second)->first,
                               call.space, range(call.range));
        case Verb::write:
        case Verb::write_unpersisted:
            return fmt::format("{} {} {:#x} {:#x}",
                               call.verb == Verb::write ? "write" : "write_unpersisted", call.space,
                               call.range.start.bits(), call.word);
        case Verb::map_file:
        case Verb::map_file_shared:
            return fmt::format("mapfile {} {} {} {} {}{}", call.space, range(call.range),
                               protection, call.name, call.word,
                               call.verb == Verb::map_file_shared ? " shared" : "");
        case Verb::map_device:
            return fmt::format("mapdevice {} {} {} {}", call.space, range(call.range), protection,
                               call.word);
        case Verb::fault:
            return fmt::format("fault {} {:#x}", call.space, call.range.start.bits());
        case Verb::evict:
            return fmt::format("evict {} {}", call.space, call.word);
        case Verb::prefer:
            return fmt::format("prefer {} {}", call.space, call.word);
        case Verb::finish_moves:
            return "finish_moves";
        case Verb::overcommit: {
            const Overcommit setting = oracle::overcommit_of(call.word);
            return fmt::format("overcommit {} {}", to_string(setting.policy),
                               setting.ratio_percent);
        }
        default:
            break;
    }
    for (const auto& [name, of_store] : kOfStore)
        if (call.verb == of_store) return fmt::format("{} {}", name, call.word);
    return {};
}

}  // namespace

bool Script::repairs() const {
    return std::any_of(operations.begin(), operations.end(),
                       [](const Step& step) { return step.repairs; });
}

bool Script::moves() const {
    const auto moves = [](const Step& step) {
        return std::any_of(step.calls.begin(), step.calls.end(), [](const oracle::Call& call) {
            return call.verb == oracle::Call::Verb::move;
        });
    };
    return std::any_of(set_up.begin(), set_up.end(), moves) ||
           std::any_of(operations.begin(), operations.end(), moves);
}

oracle::Model Script::first_model() const {
    oracle::Model model;
    for (const auto& [file, pages] : files) model.files[file] = oracle::ModelFile::of(pages);
    return model;
}

std::string Script::to_text() const {
    std::string text = fmt::format("pool {}\n", pool_bytes);
    if (lanes != kLanes) text += fmt::format("lanes {}\n", lanes);
    if (frames_bytes != 0) text += fmt::format("frames {}\n", frames_bytes);
    for (const auto& [file, pages] : files) text += fmt::format("file {} {}\n", file, pages);
    const auto add = [&](const std::vector<Step>& steps) {
        for (const Step& step : steps) {
            const bool transaction = step.calls.size() > 1;
            if (step.reopens()) text += "reopen\n";
            if (step.damage) text += fmt::format("damage {}\n", step.damage->to_string());
            if (step.repairs) text += "repair\n";
            if (transaction) text += "begin\n";
            if (!transaction && step.finds_full) text += "full ";
            for (const Call& call : step.calls) text += text_of(call) + "\n";
            if (transaction) text += step.finds_full ? "full\n" : "commit\n";
        }
    };
    add(set_up);
    if (!crashes_creation) text += "operations\n";
    add(operations);
    return text;
}

}  // namespace holdfast::crash
