#include <fmt/format.h>
#include <fmt/ranges.h>

#include <optional>

#include "oracle/calls.hpp"
#include "oracle/compare.hpp"
#include "targets/byte_source.hpp"
#include "targets/pool_image.hpp"
#include "targets/targets.hpp"

namespace holdfast::crash {
namespace {

using oracle::Model;

constexpr std::uint64_t kPoolBytes = std::uint64_t{10} << 20;
constexpr unsigned kMostSteps = 100;
constexpr unsigned kMostReopenings = 3;  // libpmemobj takes longer than all the calls

std::string differences(const Store& store, const Model& model) {
    std::vector<std::string> lines = oracle::compare(store, model);
    if (lines.empty()) lines = oracle::broken_invariants(store);
    return fmt::format("{}", fmt::join(lines, "; "));
}

std::string run_on(const CrashImage& image, ByteSource& source) {
    auto opened = open_image(image);
    if (!opened) return opened.error().message;
    std::optional<Store> store = std::move(*opened);
    Model model;
    const auto reopen = [&]() -> std::string {
        store.reset();
        auto again = open_image(image);
        if (!again) return "cannot be opened again: " + again.error().message;
        store = std::move(*again);
        return differences(*store, model);
    };
    unsigned reopenings = 0;
    for (unsigned step = 1; step <= kMostSteps && !source.empty(); ++step) {
        const std::uint8_t what = source.byte();
        if (what == 0xff) {
            if (++reopenings > kMostReopenings) continue;
            if (std::string wrong = reopen(); !wrong.empty()) return wrong;
            continue;
        }
        oracle::Calls calls;
        if (what == 0xfe) {
            oracle::Call release;
            release.verb = oracle::Call::Verb::release_limbo;
            release.word = source.byte();
            calls = {release};
        } else {
            calls = oracle::chosen_calls([&](std::uint64_t end) { return source.below(end); },
                                         0x1000 + step);
            for (oracle::Call& call : calls)
                if (call.verb == oracle::Call::Verb::create)
                    call.levels = static_cast<Levels>(3 + (1 + source.below(3)) % 3);
        }
        Model next = model;
        const auto expected = oracle::run(next, calls);
        const auto done = oracle::run(*store, calls);
        // The pool is small; then nothing may have changed.
        const bool full = !done && done.error().code == ErrorCode::no_space;
        if (!full && (done ? expected.has_value() : expected != done.error().code))
            return fmt::format("step {}: {} should {}, and {}", step, calls.front().to_string(),
                               expected ? fmt::format("say {}", to_string(*expected)) : "succeed",
                               done ? "succeeds" : "says " + done.error().message);
        if (done) model = std::move(next);
        model.prune();
        if (full)
            if (std::string wrong = differences(*store, model); !wrong.empty())
                return fmt::format("step {}: no space, and then: {}", step, wrong);
    }
    if (std::string wrong = differences(*store, model); !wrong.empty()) return wrong;
    if (std::string wrong = reopen(); !wrong.empty()) return "opened again: " + wrong;
    return {};
}

}  // namespace

std::string run_operations(std::span<const std::uint8_t> input) {
    static CrashImage image = make_pool_image(kPoolBytes, [](const Store&) {});
    ByteSource source(input);
    std::string wrong = run_on(image, source);
    image.restore_by_comparing();
    return wrong;
}

}  // namespace holdfast::crash
