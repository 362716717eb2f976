#include "subjects/random_script.hpp"

#include "oracle/calls.hpp"
#include "oracle/model.hpp"

namespace holdfast::crash {

Script random_script(const std::string& name, std::uint64_t seed, std::uint64_t calls) {
    Script script;
    script.name = name;
    script.pool_bytes = std::uint64_t{32} << 20;
    oracle::Random random(seed);
    oracle::Model model;
    const auto add = [&](std::vector<Step>& steps, std::uint64_t count) {
        for (std::uint64_t tried = 0; count > 0 && tried < 10'000; ++tried) {
            const oracle::Calls some = oracle::random_calls(random, seed * 1000 + tried);
            bool large = false;
            for (const oracle::Call& call : some) large = large || call.range.pages() > 600;
            oracle::Model after = model;
            if (large || oracle::run(after, some)) continue;
            model = std::move(after);
            steps.push_back({some});
            --count;
        }
    };
    add(script.set_up, 12);
    add(script.operations, calls);
    return script;
}

}  // namespace holdfast::crash
