// A crash test of one's own code, in one's own program: a counter with its check sum, kept with
// libpmem. The counter is right if a crash leaves it and the sum of one and the same moment.
//
// Run with "broken", it looks at a version without the first of the two persists.
#include <libpmem.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <holdfast/crash.hpp>

using namespace holdfast;

namespace {

struct Record {
    std::uint64_t value, sum;  // sum is ~value
};
struct Counter {
    alignas(64) std::uint64_t current;  // which record counts: storing it commits
    struct alignas(64) {
        Record record;
    } slots[2];
};

class CounterSubject final : public crash::Subject {
  public:
    explicit CounterSubject(bool is_broken) : is_broken_(is_broken) {}
    std::string name() const override { return is_broken_ ? "counter-broken" : "counter"; }

    Result<void> set_up(const std::string& path) override {
        Counter* const counter = map(path, PMEM_FILE_CREATE);
        if (counter == nullptr) return fail(ErrorCode::io, pmem_errormsg());
        counter->slots[0].record = {0, ~std::uint64_t{0}};
        pmem_persist(counter, sizeof *counter);
        return {};
    }

    Result<void> run(const std::string& path, crash::Operations& operations) override {
        Counter* const counter = map(path, 0);
        if (counter == nullptr) return fail(ErrorCode::io, pmem_errormsg());
        for (int i = 0; i < 3; ++i) {
            operations.begin();
            const std::uint64_t next = 1 - counter->current;
            const std::uint64_t value = counter->slots[counter->current].record.value + 1;
            counter->slots[next].record = {value, ~value};
            if (!is_broken_) pmem_persist(&counter->slots[next], sizeof(Record));
            counter->current = next;
            pmem_persist(&counter->current, sizeof counter->current);
            operations.acknowledge();
        }
        return {};
    }

    std::string check(const std::string& path, const crash::Moment& moment) override {
        const Counter* const counter = map(path, 0);
        if (counter == nullptr) return pmem_errormsg();
        const Record record = counter->slots[counter->current].record;
        pmem_unmap(const_cast<Counter*>(counter), kSize);
        if (record.sum != ~record.value) return "the sum is not that of the value";
        const std::uint64_t most = moment.acknowledged + (moment.in_flight ? 1 : 0);
        if (record.value < moment.acknowledged) return "a count that was acknowledged is lost";
        return record.value > most ? "it counted what had not begun" : "";
    }

  private:
    static constexpr std::size_t kSize = 4096;
    static Counter* map(const std::string& path, int flags) {
        return static_cast<Counter*>(
            pmem_map_file(path.c_str(), flags == 0 ? 0 : kSize, flags, 0600, nullptr, nullptr));
    }
    bool is_broken_;
};

}  // namespace

int main(int argc, char** argv) {
    CounterSubject subject(argc > 1 && std::strcmp(argv[1], "broken") == 0);
    const auto outcome = crash::run(subject, {.jobs = 2});
    if (!outcome) return std::fprintf(stderr, "%s\n", outcome.error().message.c_str()), 2;
    for (const auto& violation : outcome->violations)
        std::printf("%s: power failed %s\n", violation.text.c_str(), violation.crash_point.c_str());
    std::printf("%lu states, %zu wrong\n", static_cast<unsigned long>(outcome->states),
                outcome->violations.size());
    return outcome->violations.empty() ? 0 : 1;
}
