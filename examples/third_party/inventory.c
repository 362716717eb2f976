/* A program that knows nothing of holdfast: a persistent list of items, kept with libpmemobj, in C.
 *
 *     inventory create POOL
 *     inventory add POOL NUMBER...      durable one after the other
 *     inventory add-broken POOL NUMBER...
 *     inventory check POOL NUMBER...    is it what adding these may have left?
 *
 * A crash test of it marks where an addition begins and ends (crash_operations.h: two calls that do
 * nothing outside the test, and nothing to link), and needs the check to say what is right:
 *
 *     holdfast crash run --setup 'inventory create {pool}' --run 'inventory add {pool} 7 8 9' \
 *                        --check 'inventory check {pool} 7 8 9'
 *
 * `add-broken` has a bug that no test of an undisturbed run finds: it publishes an item before it is
 * durable. */
#include <holdfast/crash_operations.h>
#include <libpmemobj.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_ITEMS 1000

struct item {
    uint64_t number;
    char name[48];
    uint64_t check; /* ~number */
};

struct inventory {
    uint64_t count; /* items that are there: the commit point of an addition */
    struct item items[MOST_ITEMS];
};

static PMEMobjpool *pool;

static struct inventory *open_inventory(const char *path) {
    pool = pmemobj_open(path, "inventory");
    if (pool == NULL) {
        fprintf(stderr, "cannot be opened: %s\n", pmemobj_errormsg());
        exit(1);
    }
    return (struct inventory *)pmemobj_direct(pmemobj_root(pool, sizeof(struct inventory)));
}

static int create(const char *path) {
    pool = pmemobj_create(path, "inventory", PMEMOBJ_MIN_POOL, 0600);
    if (pool == NULL || OID_IS_NULL(pmemobj_root(pool, sizeof(struct inventory)))) {
        fprintf(stderr, "cannot be created: %s\n", pmemobj_errormsg());
        return 1;
    }
    pmemobj_close(pool);
    return 0;
}

static void add(struct inventory *inventory, uint64_t number, int is_broken) {
    struct item *const item = &inventory->items[inventory->count];
    item->number = number;
    snprintf(item->name, sizeof item->name, "item %lu", (unsigned long)number);
    item->check = ~number;
    if (!is_broken) pmemobj_persist(pool, item, sizeof *item);
    inventory->count++;
    pmemobj_persist(pool, &inventory->count, sizeof inventory->count);
    if (is_broken) pmemobj_persist(pool, item, sizeof *item);
}

static int add_all(const char *path, int count, char **numbers, int is_broken) {
    struct inventory *const inventory = open_inventory(path);
    for (int i = 0; i < count; ++i) {
        holdfast_crash_begin();
        add(inventory, strtoull(numbers[i], NULL, 0), is_broken);
        holdfast_crash_acknowledge();
    }
    pmemobj_close(pool);
    return 0;
}

/* Of an environment variable that the harness sets. */
static uint64_t told(const char *name, uint64_t otherwise) {
    const char *const text = getenv(name);
    return text == NULL ? otherwise : strtoull(text, NULL, 0);
}

static int check(const char *path, int count, char **numbers) {
    const uint64_t acknowledged = told("HOLDFAST_CRASH_ACKNOWLEDGED", (uint64_t)count);
    const uint64_t in_flight = told("HOLDFAST_CRASH_IN_FLIGHT", 0);
    struct inventory *const inventory = open_inventory(path);
    const uint64_t found = inventory->count;
    if (found < acknowledged || found > acknowledged + in_flight) {
        fprintf(stderr, "%lu items, but %lu were added%s\n", (unsigned long)found,
                (unsigned long)acknowledged, in_flight ? " and another begun" : "");
        return 1;
    }
    for (uint64_t i = 0; i < found; ++i)
        if (inventory->items[i].number != strtoull(numbers[i], NULL, 0) ||
            inventory->items[i].check != ~inventory->items[i].number) {
            fprintf(stderr, "item %lu is torn\n", (unsigned long)i);
            return 1;
        }
    /* It goes on working. */
    add(inventory, 1, 0);
    pmemobj_close(pool);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "create") == 0) return create(argv[2]);
    if (argc > 3 && strcmp(argv[1], "add") == 0) return add_all(argv[2], argc - 3, argv + 3, 0);
    if (argc > 3 && strcmp(argv[1], "add-broken") == 0)
        return add_all(argv[2], argc - 3, argv + 3, 1);
    if (argc > 3 && strcmp(argv[1], "check") == 0) return check(argv[2], argc - 3, argv + 3);
    fprintf(stderr, "usage: inventory create|add|add-broken|check POOL NUMBER...\n");
    return 2;
}
