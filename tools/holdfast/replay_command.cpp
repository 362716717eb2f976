// replay-trace: a memory trace of a real program through a space and a TLB.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <holdfast/replay.hpp>

#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "arguments.hpp"
#include "commands.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "quantity.hpp"

namespace holdfast::tool {
namespace {

struct ReplayArguments {
    std::vector<std::string> words;  // [POOL] [SPACE] FILE
    bool make_space = false;
    Levels levels = Levels::four;
    std::uint64_t pool_bytes = std::uint64_t{64} << 20;
    ReplayOptions options;
    std::string accesses = "all";

    bool has_pool() const { return words.size() > 1; }
    const std::string& file() const { return words.back(); }
};

// --- what is replayed, and where ---

class Input {
  public:
    static Result<Input> open(const std::string& path) {
        if (path == "-") return Input(STDIN_FILENO, 0, "standard input");
        const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
        struct stat status{};
        if (descriptor < 0 || fstat(descriptor, &status) != 0)
            return fail(errno == ENOENT   ? ErrorCode::not_found
                        : errno == EACCES ? ErrorCode::permission_denied
                                          : ErrorCode::io,
                        fmt::format("{}: {}", path, std::strerror(errno)));
        const auto size = S_ISREG(status.st_mode) ? static_cast<std::uint64_t>(status.st_size) : 0;
        return Input(descriptor, size, path);
    }
    Input(Input&& other) noexcept
        : descriptor_(std::exchange(other.descriptor_, -1)),
          size_bytes_(other.size_bytes_),
          name_(std::move(other.name_)) {}
    ~Input() {
        if (descriptor_ > STDIN_FILENO) close(descriptor_);
    }
    Input& operator=(Input&&) = delete;

    int descriptor() const { return descriptor_; }
    std::uint64_t size_bytes() const { return size_bytes_; }  // 0 where nobody knows it
    const std::string& name() const { return name_; }

  private:
    Input(int descriptor, std::uint64_t size_bytes, std::string name)
        : descriptor_(descriptor), size_bytes_(size_bytes), name_(std::move(name)) {}

    int descriptor_;
    std::uint64_t size_bytes_;
    std::string name_;
};

// Nothing of what a replay maps outlives it: a pool is opened as a copy, and one of the replay's
// own has no name in the file system while it is used.
Result<Store> store_for(const Context& context, const ReplayArguments& arguments) {
    if (arguments.has_pool()) return context.open_copy(arguments.words.front());
    const std::string path = fmt::format("/dev/shm/holdfast-replay-{}", getpid());
    auto store =
        Store::create(path, {.size_bytes = arguments.pool_bytes, .emulation = PmemEmulation::on});
    if (store) unlink(path.c_str());
    return store;
}

Result<Space> space_for(Store& store, const ReplayArguments& arguments) {
    if (!arguments.make_space) return store.open_space(arguments.words[1]);
    return store.create_space(fmt::format("replay-trace {}", getpid()),
                              {.levels = arguments.levels});
}

const char* hint_for(const Error& error, const ReplayArguments& arguments) {
    if (error.code != ErrorCode::no_space) return "";
    return arguments.has_pool() ? "; take a larger pool, or none"
                                : "; give the tables more room with --pool-size";
}

struct Replayed {
    ReplayReport report;
    std::uint64_t skipped_lines = 0;
    double seconds = 0;
};

Result<Replayed> replay(const Context& context, const ReplayArguments& arguments) {
    auto input = Input::open(arguments.file());
    if (!input) return std::unexpected(input.error());
    auto store = store_for(context, arguments);
    if (!store) return std::unexpected(store.error());
    auto space = space_for(*store, arguments);
    if (!space) return std::unexpected(space.error());
    auto replay = TraceReplay::create(*store, *space, arguments.options);
    if (!replay) return std::unexpected(replay.error());

    LackeyTrace trace(input->descriptor(), input->name());
    StatusLine clock;
    Progress progress("replaying");
    for (std::uint64_t count = 1;; ++count) {
        const auto access = trace.next();
        if (!access) return std::unexpected(access.error());
        if (!*access) break;
        if (auto done = replay->run(**access); !done)
            return fail(done.error().code,
                        fmt::format("{}, line {}: {}{}", input->name(), trace.line_number(),
                                    done.error().message, hint_for(done.error(), arguments)));
        if (count % (1 << 16) == 0) progress.update(trace.bytes_read(), input->size_bytes());
    }
    return Replayed{replay->report(), trace.skipped_lines(), clock.seconds()};
}

// --- the answer ---

double ratio(std::uint64_t a, std::uint64_t b) {
    return b == 0 ? 0 : static_cast<double>(a) / static_cast<double>(b);
}

Json json_of(const TlbGeometry& geometry) {
    return {{"entries", geometry.entries}, {"ways", geometry.ways}};
}

Json json_of(const PageSizeRun& run) {
    Json faults = Json::object();
    for (const auto& [kind, count] : run.faults) faults[to_string(kind)] = count;
    return {{"page_size", bytes(run.page_size)},
            {"lookups", run.lookups},
            {"hits", run.hits},
            {"misses", run.misses},
            {"compulsory_misses", run.compulsory},
            {"miss_ratio", ratio(run.misses, run.lookups)},
            {"evictions", run.evictions},
            {"reach_bytes", run.reach_bytes},
            {"walk",
             {{"entries_read", run.entries_read},
              {"entries_per_walk", run.entries_per_walk()},
              {"entries_read_with_caches", run.entries_read_cached},
              {"entries_per_walk_with_caches", run.entries_per_walk_cached()}}},
            {"mapped_on_demand", run.mapped_on_demand},
            {"faults", faults},
            {"tables", run.tables}};
}

Json json_of(const PageSizeCost& cost) {
    return {{"page_size", cost.page_bytes},
            {"on_x86", cost.on_x86},
            {"pages", cost.pages},
            {"mapped_bytes", cost.mapped_bytes},
            {"wasted_bytes", cost.wasted_bytes},
            {"wasted_ratio", ratio(cost.wasted_bytes, cost.mapped_bytes)},
            {"tables", cost.tables},
            {"table_bytes", cost.table_bytes},
            {"metadata_bytes", cost.metadata_bytes},
            {"overhead_bytes", cost.overhead_bytes()},
            {"overhead_ratio", ratio(cost.overhead_bytes(), cost.mapped_bytes)}};
}

void print_as_json(const ReplayArguments& arguments, const Replayed& replayed) {
    const ReplayReport& report = replayed.report;
    const TlbGeometries& tlb = arguments.options.tlb;
    Json json = {{"trace",
                  {{"file", arguments.file()},
                   {"accesses", report.accesses()},
                   {"loads", report.loads},
                   {"stores", report.stores},
                   {"modifications", report.modifications},
                   {"instructions", report.instructions},
                   {"skipped_lines", replayed.skipped_lines}}},
                 {"touched_bytes", report.touched_bytes},
                 {"tlb",
                  {{"4KiB", json_of(tlb.pages_4KiB)},
                   {"2MiB", json_of(tlb.pages_2MiB)},
                   {"1GiB", json_of(tlb.pages_1GiB)},
                   {"replacement", to_string(tlb.replacement)}}},
                 {"walk_caches", arguments.options.walk_caches.entries},
                 {"runs", Json::array()},
                 {"page_sizes", Json::array()},
                 {"seconds", replayed.seconds}};
    for (const PageSizeRun& run : report.runs) json["runs"].push_back(json_of(run));
    for (const PageSizeCost& cost : report.costs) json["page_sizes"].push_back(json_of(cost));
    print_json(json);
}

void print_as_text(const ReplayArguments& arguments, const Replayed& replayed) {
    const ReplayReport& report = replayed.report;
    const TlbGeometries& tlb = arguments.options.tlb;
    print("{} accesses: {} loads, {} stores, {} modifications, {} instructions; {} touched\n",
          format_count(report.accesses()), format_count(report.loads), format_count(report.stores),
          format_count(report.modifications), format_count(report.instructions),
          format_size(report.touched_bytes));
    print("TLB: {} entries of 4 KiB in {} ways, {} of 2 MiB in {} ways, {}\n\n",
          tlb.pages_4KiB.entries, tlb.pages_4KiB.ways, tlb.pages_2MiB.entries, tlb.pages_2MiB.ways,
          to_string(tlb.replacement));
    print("{:<10}{:>14}{:>13}{:>13}{:>10}{:>12}{:>13}{:>13}{:>9}\n", "page size", "look-ups",
          "misses", "compulsory", "missed", "reach", "read/walk", "with caches", "tables");
    for (const PageSizeRun& run : report.runs)
        print("{:<10}{:>14}{:>13}{:>13}{:>9.3f}%{:>12}{:>13.2f}{:>13.2f}{:>9}\n",
              format_size(bytes(run.page_size)), format_count(run.lookups),
              format_count(run.misses), format_count(run.compulsory),
              100 * ratio(run.misses, run.lookups), format_size(run.reach_bytes),
              run.entries_per_walk(), run.entries_per_walk_cached(), format_count(run.tables));
    for (const PageSizeRun& run : report.runs)
        for (const auto& [kind, count] : run.faults)
            print("{}: {} look-ups ended in a fault ({})\n", format_size(bytes(run.page_size)),
                  format_count(count), to_string(kind));
    print("\n{:<10}{:>13}{:>12}{:>15}{:>9}{:>10}{:>20}{:>12}\n", "page size", "pages", "mapped",
          "never touched", "", "tables", "tables + metadata", "of mapped");
    for (const PageSizeCost& cost : report.costs)
        print("{:<10}{:>13}{:>12}{:>15}{:>8.1f}%{:>10}{:>20}{:>11.3f}%{}\n",
              format_size(cost.page_bytes), format_count(cost.pages),
              format_size(cost.mapped_bytes), format_size(cost.wasted_bytes),
              100 * ratio(cost.wasted_bytes, cost.mapped_bytes), format_count(cost.tables),
              format_size(cost.overhead_bytes()),
              100 * ratio(cost.overhead_bytes(), cost.mapped_bytes),
              cost.on_x86 ? "" : "  computed: x86 has no such page");
}

Outcome replay_trace(const Context& context, const ReplayArguments& arguments) {
    const auto replayed = replay(context, arguments);
    if (!replayed) return std::unexpected(replayed.error());
    if (context.json)
        print_as_json(arguments, *replayed);
    else
        print_as_text(arguments, *replayed);
    return ExitStatus::well;
}

// --- its options ---

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts(1);
    for (const char letter : text)
        if (letter == separator)
            parts.emplace_back();
        else
            parts.back() += letter;
    return parts;
}

std::optional<std::uint32_t> count_of(const std::string& digits) {
    if (digits.empty() || digits.size() > 9) return std::nullopt;
    std::uint32_t count = 0;
    for (const char digit : digits) {
        if (digit < '0' || digit > '9') return std::nullopt;
        count = 10 * count + static_cast<std::uint32_t>(digit - '0');
    }
    return count;
}

// "4KiB=64x4,2MiB=32x4": sizes that are not named keep what they have.
void parse_tlb(const std::string& text, TlbGeometries& tlb) {
    for (const std::string& part : split(text, ',')) {
        const auto refuse = [&] {
            throw CLI::ValidationError(
                "--tlb", fmt::format("\"{}\" is not a size of pages, entries and ways, such as "
                                     "4KiB=64x4 or 2MiB=32x4,1GiB=0x1",
                                     part));
        };
        const auto halves = split(part, '=');
        if (halves.size() != 2) refuse();
        const auto numbers = split(halves[1], 'x');
        if (numbers.size() != 2) refuse();
        const auto size = parse_size(halves[0]);
        const auto entries = count_of(numbers[0]), ways = count_of(numbers[1]);
        if (!size || !entries || !ways) refuse();
        const TlbGeometry geometry{*entries, *ways};
        if (*size == bytes(PageSize::size_4KiB))
            tlb.pages_4KiB = geometry;
        else if (*size == bytes(PageSize::size_2MiB))
            tlb.pages_2MiB = geometry;
        else if (*size == bytes(PageSize::size_1GiB))
            tlb.pages_1GiB = geometry;
        else
            refuse();
    }
    if (auto fine = tlb.check(); !fine) throw CLI::ValidationError("--tlb", fine.error().message);
}

void parse_walk_caches(const std::string& text, WalkCacheSizes& sizes) {
    const auto parts = split(text, ',');
    for (std::size_t i = 0; i < parts.size(); ++i) {
        const auto count = i < sizes.entries.size() ? count_of(parts[i]) : std::nullopt;
        if (!count || *count > 65536)
            throw CLI::ValidationError(
                "--walk-caches",
                fmt::format("\"{}\" is not up to four numbers of entries, such as 32,4,4", text));
        sizes.entries[i] = *count;
    }
}

TlbReplacement parse_replacement(const std::string& text) {
    for (const TlbReplacement each :
         {TlbReplacement::lru, TlbReplacement::fifo, TlbReplacement::random})
        if (text == to_string(each)) return each;
    throw CLI::ValidationError(
        "--replacement",
        fmt::format("\"{}\" is no replacement policy; choose lru, fifo or random", text));
}

void declare(CLI::App& command, ReplayArguments& arguments) {
    command
        .add_option(
            "WORDS", arguments.words,
            "POOL SPACE FILE: through a space as it is;\n"
            "POOL FILE, with --new: through an empty space in the pool;\n"
            "FILE, with --new: through an empty space in a pool made for it.\n"
            "FILE is what `valgrind --tool=lackey --trace-mem=yes --log-file=FILE PROGRAM`\n"
            "wrote; - is standard input")
        ->required()
        ->type_name("");
    command.add_flag("--new", arguments.make_space, "through an empty space");
    add_levels(command, arguments.levels);
    add_size(command, "--pool-size", arguments.pool_bytes,
             "of a pool that is made for it: its tables lie there (64MiB)");
    command.add_option_function<std::string>(
        "--tlb", [&](const std::string& text) { parse_tlb(text, arguments.options.tlb); },
        "entries and ways by page size (4KiB=1024x4,2MiB=256x4,1GiB=16x4)");
    command.add_option_function<std::string>(
        "--replacement",
        [&](const std::string& text) {
            arguments.options.tlb.replacement = parse_replacement(text);
        },
        "lru (the default), fifo or random");
    command.add_option_function<std::string>(
        "--walk-caches",
        [&](const std::string& text) { parse_walk_caches(text, arguments.options.walk_caches); },
        "entries of levels 2, 3, 4 and 5 that a processor keeps for its walks (32,4,4,4)");
    command
        .add_option_function<std::string>(
            "--accesses",
            [&](const std::string& text) {
                arguments.options.data = text != "instructions";
                arguments.options.instructions = text != "data";
            },
            "all (the default), data or instructions")
        ->check(CLI::IsMember({"all", "data", "instructions"}));
    command.parse_complete_callback([&arguments] {
        const std::size_t count = arguments.words.size();
        if (arguments.make_space ? count <= 2 : count == 3) return;
        throw CLI::ValidationError(
            "replay-trace", "give POOL SPACE FILE, or with --new either POOL FILE or FILE alone");
    });
}

}  // namespace

void add_replay_command(CLI::App& app, Context& context) {
    add_command<ReplayArguments>(
        app, context, "replay-trace",
        "Run a memory trace of a program through a space and a TLB, and say what each size of "
        "pages costs. Changes nothing: a pool is opened as a copy.",
        declare, replay_trace);
}

}  // namespace holdfast::tool
