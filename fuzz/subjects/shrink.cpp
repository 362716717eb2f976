#include "subjects/shrink.hpp"

namespace holdfast::crash {
namespace {

// Whether every call succeeds, by the model.
bool is_possible(const Script& script) {
    oracle::Model model = script.first_model();
    for (const auto* steps : {&script.set_up, &script.operations})
        for (const Step& step : *steps) {
            if (!step.calls.empty() && !step.finds_full && oracle::run(model, step.calls))
                return false;
            if (step.damage && !step.damage->apply(model)) return false;
        }
    return !script.operations.empty() || script.crashes_creation;
}

}  // namespace

Result<Script> shrink(const Script& script,
                      const std::function<Result<bool>(const Script&)>& fails) {
    Script shortest = script;
    bool shorter = true;
    // Takes the candidate if it is possible and still fails.
    const auto take = [&](Script candidate) -> Result<bool> {
        if (!is_possible(candidate)) return false;
        const auto failed = fails(candidate);
        if (!failed) return failed;
        if (*failed) {
            shortest = std::move(candidate);
            shorter = true;
        }
        return *failed;
    };
    while (shorter) {
        shorter = false;
        // From the end: what follows the failure goes first.
        for (auto steps : {&Script::operations, &Script::set_up}) {
            for (std::size_t i = (shortest.*steps).size(); i-- > 0;) {
                Script without = shortest;
                (without.*steps).erase((without.*steps).begin() + static_cast<std::ptrdiff_t>(i));
                const auto taken = take(std::move(without));
                if (!taken) return std::unexpected(taken.error());
                if (*taken) continue;
                for (std::size_t call = (shortest.*steps)[i].calls.size(); call-- > 0;) {
                    if ((shortest.*steps)[i].calls.size() < 2) break;
                    Script fewer = shortest;
                    auto& calls = (fewer.*steps)[i].calls;
                    calls.erase(calls.begin() + static_cast<std::ptrdiff_t>(call));
                    if (const auto kept = take(std::move(fewer)); !kept)
                        return std::unexpected(kept.error());
                }
            }
        }
        // Two steps of the set-up may need each other and nothing else need them.
        for (std::size_t later = shortest.set_up.size(); later-- > 1 && !shorter;)
            for (std::size_t earlier = later; earlier-- > 0 && !shorter;) {
                Script without = shortest;
                auto& steps = without.set_up;
                steps.erase(steps.begin() + static_cast<std::ptrdiff_t>(later));
                steps.erase(steps.begin() + static_cast<std::ptrdiff_t>(earlier));
                if (const auto kept = take(std::move(without)); !kept)
                    return std::unexpected(kept.error());
            }
    }
    return shortest;
}

}  // namespace holdfast::crash
