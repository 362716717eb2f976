#include "explore/choose_states.hpp"

#include <algorithm>
#include <iterator>
#include <random>
#include <unordered_set>

#include "trace/stable_hash.hpp"

namespace holdfast::crash {
namespace {

class Chooser {
  public:
    Chooser(const CrashWindow& window, const std::vector<std::size_t>& relevant,
            const ChooseOptions& options, const std::function<bool(const Choice&)>& judge)
        : window_(window), relevant_(relevant), options_(options), judge_(judge) {
        for (const PendingLine& line : window.lines) {
            newest_.push_back(static_cast<std::uint16_t>(line.candidates.size() - 1));
            has_new_.push_back(std::find(line.is_new.begin(), line.is_new.end(), true) !=
                               line.is_new.end());
        }
    }

    bool run() {
        if (options_.exploration == Exploration::full &&
            window_.new_states(relevant_) <= static_cast<double>(options_.at_most)) {
            all();
            return !stopped_ && lines_complete();
        }
        // A window may have more events than it may have states, so that its order comes later.
        if (options_.exploration >= Exploration::sampled) {
            offer(newest_);
            offer(with_relevant_at(0));
            one_line_apart(Apart::far);
        }
        program_order();
        if (options_.exploration == Exploration::program_order) return false;
        offer(with_relevant_at(0));
        offer(newest_);
        if (options_.exploration == Exploration::flushed_only) return false;
        one_line_apart(Apart::all);
        sample();
        return false;
    }

  private:
    bool done() const { return stopped_ || judged_ >= options_.at_most; }

    bool lines_complete() const {
        return std::all_of(relevant_.begin(), relevant_.end(),
                           [&](std::size_t index) { return window_.lines[index].complete; });
    }

    bool is_new(const Choice& choice) const {
        if (window_.all_new) return true;
        return std::any_of(relevant_.begin(), relevant_.end(), [&](std::size_t index) {
            return window_.lines[index].is_new[choice[index]];
        });
    }

    // Judges a state, unless it was judged before in this window.
    void offer(const Choice& choice) {
        if (done() || !seen_.insert(hash_of(choice)).second) return;
        ++judged_;
        if (!judge_(choice)) stopped_ = true;
    }

    Choice with_relevant_at(std::uint16_t candidate) const {
        Choice choice = newest_;
        for (const std::size_t index : relevant_) choice[index] = candidate;
        return choice;
    }

    // All combinations with something new in at least one line; none of the others is looked at,
    // which may be very many more.
    void all() {
        Choice choice = with_relevant_at(0);
        if (window_.all_new) return combine(choice, 0, Newness::any);
        combine(choice, 0, Newness::needed);
    }

    enum class Newness : std::uint8_t { needed, any };
    void combine(Choice& choice, std::size_t place, Newness newness) {
        if (stopped_) return;
        if (place == relevant_.size()) {
            if (newness == Newness::any) offer(choice);
            return;
        }
        const std::size_t index = relevant_[place];
        const PendingLine& line = window_.lines[index];
        // What is still needed must be possible in the lines that follow.
        const bool possible_later =
            std::any_of(relevant_.begin() + static_cast<std::ptrdiff_t>(place) + 1, relevant_.end(),
                        [&](std::size_t later) { return has_new_[later]; });
        for (std::size_t candidate = 0; candidate < line.candidates.size(); ++candidate) {
            choice[index] = static_cast<std::uint16_t>(candidate);
            const bool found = newness == Newness::any || line.is_new[candidate];
            if (found)
                combine(choice, place + 1, Newness::any);
            else if (possible_later)
                combine(choice, place + 1, Newness::needed);
        }
        choice[index] = 0;
    }

    void program_order() {
        for (EventIndex event = window_.first_event + 1; event <= window_.end_event; ++event) {
            if (done()) return;
            Choice choice = window_.in_program_order(event);
            Choice only_relevant = newest_;
            for (const std::size_t index : relevant_) only_relevant[index] = choice[index];
            offer(only_relevant);
        }
    }

    // All lines visible but one, and all lines lost but one: each line with each of its candidates.
    // First those that this window has stored to, and what is farthest from the rest: a small
    // number of states must not go into the many contents of a line that was left long ago.
    enum class Apart : std::uint8_t { far, all };
    void one_line_apart(Apart how) {
        std::vector<std::size_t> lines;
        lines.reserve(relevant_.size());
        for (const bool is_new : {true, false})
            std::copy_if(relevant_.begin(), relevant_.end(), std::back_inserter(lines),
                         [&](std::size_t index) { return has_new_[index] == is_new; });
        const auto offer_both = [&](std::size_t index, std::size_t if_lost, std::size_t if_early) {
            if (done()) return;
            Choice lost = newest_, early = with_relevant_at(0);
            lost[index] = static_cast<std::uint16_t>(if_lost);
            early[index] = static_cast<std::uint16_t>(if_early);
            offer(lost);
            offer(early);
        };
        if (how == Apart::far) {
            for (const std::size_t index : lines)
                offer_both(index, 0, window_.lines[index].candidates.size() - 1);
            return;
        }
        for (const std::size_t index : lines)
            for (std::size_t candidate = 0; candidate < window_.lines[index].candidates.size();
                 ++candidate)
                offer_both(index, candidate, candidate);
    }

    void sample() {
        std::mt19937_64 random(options_.seed * 0x9e37'79b9'7f4a'7c15 + window_.number);
        // Often enough the same state again means that there are hardly others.
        for (int fruitless = 0; !done() && fruitless < 1000;) {
            Choice choice = newest_;
            const std::uint64_t lose_of_16 = 1 + random() % 15;
            for (const std::size_t index : relevant_) {
                const std::size_t count = window_.lines[index].candidates.size();
                const bool lose = random() % 16 < lose_of_16;
                const bool extreme = random() % 2 == 0;
                choice[index] = static_cast<std::uint16_t>(!extreme ? random() % count
                                                           : lose   ? 0
                                                                    : count - 1);
            }
            const std::uint64_t before = judged_;
            offer(choice);
            fruitless = judged_ == before ? fruitless + 1 : 0;
        }
    }

    const CrashWindow& window_;
    const std::vector<std::size_t>& relevant_;
    const ChooseOptions& options_;
    const std::function<bool(const Choice&)>& judge_;
    Choice newest_;
    std::vector<bool> has_new_;  // of each line: has it a candidate with a store of this window?
    std::unordered_set<std::uint64_t> seen_;
    std::uint64_t judged_ = 0;
    bool stopped_ = false;
};

}  // namespace

std::uint64_t hash_of(const Choice& choice) { return StableHash().add_all(choice).value(); }

bool choose_states(const CrashWindow& window, const std::vector<std::size_t>& relevant,
                   const ChooseOptions& options, const std::function<bool(const Choice&)>& judge) {
    return Chooser(window, relevant, options, judge).run();
}

}  // namespace holdfast::crash
